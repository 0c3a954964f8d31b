"""Workers none of whose sessions is left: who is found, who is not, and what is done about it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import until
from tests.drivers import Driver
from tests.store import engine

from agentos.core.presence import Presence
from agentos.store.calls import workers
from agentos.store.connect import Database, OnConnection, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.errors import AgentOSError
from agentos.store.migrate import migrate
from agentos.store.settings import load_settings

Conn = psycopg.Connection[Any]


@pytest.fixture
def beat(database_dsn: str) -> Iterator[Conn]:
    """The session of another process, which beats on it."""
    with psycopg.connect(database_dsn, autocommit=True, application_name="agentos-beat 0ther") as session:
        yield session


def lost(runner: Driver, session: Conn) -> engine.Worker:
    """A worker that beats on `session`, and claims."""
    engine.submit(runner)
    worker = engine.register(runner)
    OnConnection(session).run(workers.beat(worker.worker_id, 0, 0, session.info.backend_pid))
    return worker


def found(runner: Driver) -> list[int]:
    return [each.worker_id for each in runner.run(workers.gone_workers())]


def test_a_worker_is_gone_when_its_last_session_is_and_its_leases_are_charged_as_ever(
    runner: Driver, beat: Conn, database_dsn: str
) -> None:
    worker = lost(runner, beat)
    (item,) = worker.claim()
    with psycopg.connect(database_dsn, application_name="agentos 0ther"):
        beat.close()
        until(lambda: len(names(runner, "0ther")) == 1)
        assert found(runner) == []
    until(lambda: found(runner) == [worker.worker_id])
    assert runner.run(workers.leases_at_risk(worker.lanes)).leases == 1
    gone = runner.run(workers.gone_workers())
    assert runner.run(workers.reclaim()) == ()
    assert runner.run(workers.declare_gone(gone)) == (worker.worker_id,)
    assert runner.run(workers.declare_gone(gone)) == ()
    (taken,) = runner.run(workers.reclaim())
    assert (taken.item_id, taken.worker_id, taken.crashes) == (item.item_id, worker.worker_id, 1)
    assert worker.complete(item) == {item.item_id}, "fenced off"


def test_who_is_back_before_the_second_look_is_left_alone(runner: Driver, beat: Conn, database_dsn: str) -> None:
    worker = lost(runner, beat)
    beat.close()
    gone = until(lambda: runner.run(workers.gone_workers()))
    with psycopg.connect(database_dsn, autocommit=True, application_name="agentos-beat 0ther") as again:
        assert runner.run(workers.declare_gone(gone)) == (), "it has a session, and has not beaten on it yet"
        OnConnection(again).run(workers.beat(worker.worker_id, 0, 0, again.info.backend_pid))
    until(lambda: found(runner) == [worker.worker_id])
    assert runner.run(workers.declare_gone(gone)) == (), "that was found at another beat"


@pytest.mark.parametrize("pid", [None, 1])
def test_of_whom_a_pooler_or_an_older_version_beats_nothing_is_concluded(
    runner: Driver, beat: Conn, pid: int | None
) -> None:
    worker = engine.register(runner)
    OnConnection(beat).run(workers.beat(worker.worker_id, 0, 0, pid))
    beat.close()
    until(lambda: not names(runner, "0ther"))
    assert found(runner) == []


def names(runner: Driver, process: str) -> list[int]:
    return list(runner.run(engine.sessions_of(process)))


def test_after_a_crash_of_the_server_nobody_is_gone_who_has_not_beaten_since(
    own_server: Callable[..., EmbeddedServer],
) -> None:
    """All sessions end, and no start of the server tells of it."""
    dsn = own_server({"fsync": "off"}).ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    since = "SELECT pg_postmaster_start_time(), agentos.sessions_since()"
    db = Database(dsn)
    presence = Presence(db, role="worker", settings=load_settings(dsn=dsn)).start()
    until(lambda: rows(db, "SELECT 1 FROM agentos.workers WHERE sessions IS NOT NULL"))
    presence.heartbeat.stop()
    (before,) = rows(db, since)
    with connect(dsn) as victim:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
    db.close()
    db = Database(dsn)
    (after,) = until(lambda: [row for row in rows(db, since) if row[1] > before[1]])  # the server notices in its time
    assert after[0] == before[0]
    with connect(dsn) as conn:
        conn.execute("UPDATE agentos.workers SET sessions = 'none'")
        assert conn.execute("SELECT * FROM agentos.gone_workers()").fetchall() == []
        conn.execute("UPDATE agentos.workers SET sessions_since = agentos.sessions_since()")
        assert len(conn.execute("SELECT * FROM agentos.gone_workers()").fetchall()) == 1
    db.close()


def rows(db: Database, query: str) -> list[Any]:
    with suppress(AgentOSError, psycopg.Error), db.connection() as conn:
        return conn.execute(query.encode()).fetchall()
    return []
