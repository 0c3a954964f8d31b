"""A submit that is said again: the same task, or a refusal that shows both; and a process that dies saying it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver

from agentos.core.app import App
from agentos.store.calls import tasks
from agentos.store.errors import IdempotencyConflict, InvalidInput
from agentos.testing.crash import Saboteur, parse
from agentos.testing.fork import in_child


def counted(conn: psycopg.Connection[Any]) -> Any:
    return conn.execute("SELECT count(*) FROM agentos.task_records").fetchone()


def test_the_same_key_and_payload_is_the_same_task(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    app = App(dsn=database_dsn)
    first = app.submit("shell", {"command": "date", "cwd": "/"}, idempotency_key="order-7")
    again = app.submit("shell", {"cwd": "/", "command": "date"}, idempotency_key="order-7")
    assert (first.created, again.created) == (True, False)
    assert again.task_id == first.task_id
    assert counted(conn) == (1,)


@pytest.mark.parametrize(("kind", "payload"), [("shell", {"command": "true"}), ("llm", {"prompt": "date"})])
def test_other_content_under_the_same_key_is_refused_with_both(
    database_dsn: str, conn: psycopg.Connection[Any], kind: str, payload: dict[str, str]
) -> None:
    app = App(dsn=database_dsn)
    first = app.submit("shell", {"command": "date"}, idempotency_key="order-7")
    with pytest.raises(IdempotencyConflict, match=rf"task {first.task_id}, a shell .* this is a {kind}"):
        app.submit(kind, payload, idempotency_key="order-7")
    assert counted(conn) == (1,)


def test_eight_who_say_it_at_once_get_one_task(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    app = App(dsn=database_dsn)
    with ThreadPoolExecutor(8) as threads:
        said = [threads.submit(app.submit, "shell", {"command": "date"}, idempotency_key="k") for _ in range(8)]
        handles = [each.result() for each in said]
    assert len({handle.task_id for handle in handles}) == 1
    assert [handle.created for handle in handles].count(True) == 1
    assert counted(conn) == (1,)


def test_in_the_callers_transaction_the_key_is_his_to_commit(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    app = App(dsn=database_dsn)
    with psycopg.connect(database_dsn) as mine:
        assert app.submit("shell", {"command": "date"}, idempotency_key="k", conn=mine).created
        mine.rollback()
    assert counted(conn) == (0,)
    assert app.submit("shell", {"command": "date"}, idempotency_key="k").created


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("call", ["submit_key", "submit"])
def test_a_submitter_that_dies_may_say_it_again(
    database_dsn: str, conn: psycopg.Connection[Any], call: str, when: str
) -> None:
    app = App(dsn=database_dsn)

    def say(tell: Any) -> None:
        Saboteur(parse(f"{when}:{call}"), tell).install()
        App(dsn=database_dsn).submit("shell", {"command": "date"}, idempotency_key="k", task_id="first")

    assert in_child(say, timeout_s=60).killed
    handle = app.submit("shell", {"command": "date"}, idempotency_key="k", task_id="second")
    assert counted(conn) == (1,)
    assert handle.task_id == ("second" if handle.created else "first")


@pytest.mark.parametrize("key", ["", "x" * 256, 7])
def test_what_is_no_key_is_refused(database_dsn: str, key: Any) -> None:
    with pytest.raises(InvalidInput, match="idempotency_key"):
        App(dsn=database_dsn).submit("shell", {"command": "date"}, idempotency_key=key)


def test_a_limit_set_at_the_submit_is_set_once(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    app = App(dsn=database_dsn)
    for _ in range(2):
        app.submit("shell", {"command": "date"}, idempotency_key="k", deadline_s=60)
    assert counted(conn) == (1,)


def test_the_key_is_reserved_once(runner: Driver) -> None:
    assert runner.run(tasks.submit_key("k", "task-1", "shell", "0" * 64)) is None
    assert runner.run(tasks.submit_key("k", "task-2", "shell", "0" * 64)) == "task-1"
