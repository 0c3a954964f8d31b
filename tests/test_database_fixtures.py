"""The fixtures themselves: what the other tests stand on."""

import os
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver

from agentos.store.calls import tasks
from agentos.store.connect import AsyncDatabase, Database, get_db
from agentos.testing.clock import Clock
from agentos.testing.soundness import assert_sound


def test_the_default_database_of_a_test_is_its_own(database_dsn: str, db: Database) -> None:
    db.run(tasks.submit("task-1", "shell", "a title", "{}"))
    with get_db() as conn:
        assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (1,)
    assert os.environ["AGENTOS_DSN"] == database_dsn


async def test_the_awaited_handle_sees_the_same_database(db: Database, adb: AsyncDatabase) -> None:
    db.run(tasks.submit("task-1", "shell", "a title", "{}"))
    task = await adb.run(tasks.get_task("task-1"))
    assert task is not None
    assert task.status == "created"


def test_both_drivers_run_a_call(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    assert runner.run(tasks.list_tasks()) == ()
    session = runner.session()
    session.begin()
    session.run(tasks.submit("task-1", "shell", "a title", "{}"))
    assert conn.execute("SELECT count(*) FROM agentos.work_items").fetchone() == (0,)
    session.commit()
    assert conn.execute("SELECT count(*) FROM agentos.work_items").fetchone() == (1,)


def test_the_clock_moves_for_sessions_that_are_open(clock: Clock, conn: psycopg.Connection[Any]) -> None:
    ahead = "SELECT extract(epoch FROM agentos.clock() - clock_timestamp()) > 19"
    assert conn.execute(ahead).fetchone() == (False,)
    clock.advance(20)
    assert conn.execute(ahead).fetchone() == (True,)
    clock.advance(-20)
    assert conn.execute(ahead).fetchone() == (False,)


@pytest.mark.unsound("an item is lost, to see it found")
def test_a_lost_item_is_found(database_dsn: str, db: Database, conn: psycopg.Connection[Any]) -> None:
    db.run(tasks.submit("task-1", "shell", "a title", "{}"))
    conn.execute("DELETE FROM agentos.lease_ready")
    with pytest.raises(AssertionError, match="task-1"):
        assert_sound(database_dsn)


@pytest.mark.unsound("a head miscounts, to see it found")
def test_a_miscounting_head_is_found(database_dsn: str, db: Database, conn: psycopg.Connection[Any]) -> None:
    db.run(tasks.create_task("task-1", "a title", items='[{"kind": "shell"}]'))
    conn.execute("UPDATE agentos.task_heads SET open_items = 7")
    with pytest.raises(AssertionError, match="open_items"):
        assert_sound(database_dsn)
