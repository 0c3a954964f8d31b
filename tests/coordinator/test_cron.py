"""Cron with real processes: a worker declares, the leader fires, nothing twice, whoever is stopped or killed."""

import json
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Command, agentos, zygote
from tests.coordinator.cron_app import app
from tests.coordinator.daemon import Daemon, until
from tests.store import engine

from agentos.core.app.cron import declare
from agentos.store.calls import cron
from agentos.store.connect import Database
from agentos.store.run import drive

Conn = psycopg.Connection[Any]
__all__ = ["agentos", "zygote"]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_CRON_S", "0.1")


def fired(conn: Conn) -> list[str]:
    return [row[0] for row in conn.execute("SELECT task_id FROM agentos.task_records ORDER BY 1").fetchall()]


def due(conn: Conn, ago_s: int) -> str:
    """The entry's next time is just past. Returns the id of its task."""
    row = conn.execute(
        "UPDATE agentos.cron_entries SET next_at = date_trunc('second', clock_timestamp()) - make_interval(secs => %s)"
        " RETURNING to_char(next_at AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS\"Z\"')",
        (ago_s,),
    ).fetchone()
    assert row is not None
    return f"cron-tick-{row[0]}"


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_leader_that_is_stopped_or_killed_while_it_fires_fires_once(
    db: Database, conn: Conn, database_dsn: str, start: Callable[..., Daemon], how: signal.Signals
) -> None:
    drive(db, declare(tuple(app.cron_entries.values())))
    first = start()
    first.until_said("leading")
    second = start()
    second.until_said("coordinating")
    with conn.transaction():
        conn.execute("LOCK TABLE agentos.task_records IN SHARE MODE")  # whoever fires gets so far, and waits
        with psycopg.connect(database_dsn, autocommit=True) as other:
            task = due(other, 9)
        until(
            lambda: conn.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone(),
            what="the leader is in the middle of firing",
        )
        first.signal(how)
        second.until_said("leading")
    until(lambda: fired(conn) == [task])
    another = due(conn, 5)
    until(lambda: fired(conn) == [task, another], what="the second goes on")
    if how == signal.SIGSTOP:
        first.signal(signal.SIGCONT)
        first.until_said("not leading any more")
    last = due(conn, 1)
    until(lambda: last in fired(conn))
    assert fired(conn) == [task, another, last]
    assert engine.count(conn, "work_items") == 3


def test_a_worker_declares_what_its_app_has_and_runs_what_is_fired(
    db: Database, conn: Conn, start: Callable[..., Daemon], agentos: Command
) -> None:
    start().until_said("leading")
    worker = Daemon("agentos.worker", "--app", "tests.coordinator.cron_app:app", env={"AGENTOS_POLL_S": "0.1"})
    try:
        worker.until_said("cron entries declared")
        worker.until_said("serving")
        listed = json.loads(agentos("cron", "list", "--json").stdout)["entries"]
        assert [(each["name"], each["declared"], each["paused"]) for each in listed] == [("tick", True, False)]
        task = due(conn, 1)
        until(lambda: engine.count(conn, "outcomes") == 1)
        assert engine.status(db, task) == "completed"
    finally:
        worker.close()


def test_the_commands_pause_run_resume_and_remove(db: Database, conn: Conn, agentos: Command) -> None:
    assert "there is none" in agentos("cron", "list").stderr
    registered = json.loads(agentos("cron", "register", "--app", "tests.coordinator.cron_app:app", "--json").stdout)
    assert registered == {"entries": ["tick"], "taken": 1}
    assert agentos("cron", "pause", "tick").stdout == "tick: paused\n"
    assert "paused" in agentos("cron", "list").stdout
    by_hand = agentos("cron", "run", "tick").stdout.strip()
    assert fired(conn) == [by_hand]
    assert json.loads(agentos("cron", "resume", "tick", "--json").stdout) == {"name": "tick", "state": "on"}
    (entry,) = db.run(cron.list_cron())
    assert (entry.paused, entry.next_at > entry.now) == (False, True)
    assert agentos("cron", "remove", "tick").returncode == 0
    assert db.run(cron.list_cron()) == ()
    unknown = agentos("cron", "pause", "tick")
    assert unknown.returncode == 5
    assert "Fix: see which there are: agentos cron list" in unknown.stderr
