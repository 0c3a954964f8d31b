"""What a coordinator does, seen from outside: real processes on a real Postgres."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import PATIENCE_S, Daemon, until
from tests.coordinator.pool import submit_many, worker_that_dies

from agentos.store.calls import statistics, tasks, workers
from agentos.store.connect import Database

Conn = psycopg.Connection[Any]


def ready(conn: Conn) -> dict[int, int]:
    """Crashes by item, of the ready ones."""
    return dict(conn.execute("SELECT item_id, crashes::integer FROM agentos.lease_ready").fetchall())


def test_leases_of_a_dead_worker_are_reclaimed_and_only_started_items_are_charged(
    db: Database, conn: Conn, start: Callable[..., Daemon]
) -> None:
    submit_many(db, 2)
    _, held = worker_that_dies(db, ttl_s=0.2, claims=2)
    started, prefetched = (item.item_id for item in held)
    conn.execute("UPDATE agentos.lease_held SET started = false WHERE item_id = %s", (prefetched,))
    start()
    until(lambda: len(ready(conn)) == 2, what="both leases are ready again")
    assert ready(conn) == {started: 1, prefetched: 0}


def test_a_worker_that_beats_keeps_its_leases(db: Database, conn: Conn, start: Callable[..., Daemon]) -> None:
    submit_many(db, 2)
    living, _ = worker_that_dies(db, ttl_s=60, claims=1)
    worker_that_dies(db, ttl_s=0.2, claims=1)
    start()
    until(lambda: ready(conn), what="the dead worker's lease is ready again")
    assert conn.execute("SELECT worker_id FROM agentos.lease_held").fetchall() == [(living,)]


def test_the_third_crash_quarantines_the_item(db: Database, conn: Conn, start: Callable[..., Daemon]) -> None:
    submit_many(db, 1)
    worker_that_dies(db, ttl_s=0.2, claims=1)
    conn.execute("UPDATE agentos.lease_held SET crashes = 2")
    coordinator = start()
    until(lambda: db.run(tasks.task_progress("task-0")).ended)
    assert db.run(tasks.task_progress("task-0")).status == "failed"
    assert "task-0" in coordinator.until_said("item quarantined")


def test_due_items_are_promoted_when_due_and_listeners_of_their_queue_are_woken(
    db: Database, conn: Conn, start: Callable[..., Daemon]
) -> None:
    late = db.run(tasks.submit("task-late", "work", "a title", "{}", queue="slow", delay_s=1.2))
    db.run(tasks.submit("task-later", "work", "a title", "{}", delay_s=60))
    conn.execute("LISTEN agentos_wake")
    start("--sweep", "30")  # so long a sweep shows that the due time is waited for
    woken = [notice.payload for notice in conn.notifies(timeout=PATIENCE_S, stop_after=1)]
    assert woken == ["slow"]
    assert ready(conn) == {late: 0}


def test_one_sweep_says_what_it_did(db: Database, conn: Conn, start: Callable[..., Daemon]) -> None:
    submit_many(db, 1)
    worker_that_dies(db, ttl_s=0.01, claims=1)
    db.run(tasks.submit("task-late", "work", "a title", "{}", queue="slow", delay_s=0.01))
    until(lambda: conn.execute("SELECT 1 FROM agentos.scheduled WHERE run_at < clock_timestamp()").fetchone())
    once = start("--once", "--json")
    assert once.ended() == 0
    report = json.loads(next(line for line in once.lines if line.startswith('{"reclaimed"')))
    assert report == {
        "reclaimed": 1,
        "quarantined": 0,
        "queues": ["slow"],
        "repaired": 0,
        "partitions": 0,
        "retired": 0,
    }
    assert db.run(workers.promote()) == ()


def test_a_task_whose_counter_is_wrong_is_repaired(db: Database, conn: Conn, start: Callable[..., Daemon]) -> None:
    db.run(tasks.create_task("task-1", "a title", items='[{"kind": "work"}]'))
    conn.execute("UPDATE agentos.task_heads SET open_items = 7")
    start().until_said("tasks repaired")
    assert conn.execute("SELECT open_items FROM agentos.task_heads").fetchone() == (1,)


def test_who_keeps_a_lease_locked_is_named_and_the_lease_is_taken_when_it_lets_go(
    db: Database, conn: Conn, start: Callable[..., Daemon], database_dsn: str
) -> None:
    submit_many(db, 1)
    _, (item,) = worker_that_dies(db, ttl_s=0.01, claims=1)
    with psycopg.connect(database_dsn) as blocker:
        blocker.execute("SELECT 1 FROM agentos.lease_held FOR UPDATE")
        line = json.loads(start().until_said("cannot be taken back"))
        assert (line["item_id"], line["blocker_pid"]) == (item.item_id, blocker.info.backend_pid)
        blocker.rollback()
        until(lambda: ready(conn) == {item.item_id: 1})


def test_it_holds_at_most_four_connections(conn: Conn, start: Callable[..., Daemon]) -> None:
    start().until_said("leading")
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"  # autovacuum works there too
    )
    seen = [conn.execute(others).fetchone() or (0,) for _ in range(50)]
    assert max(count for (count,) in seen) <= 4


def test_it_counts_at_its_interval_what_there_is(
    db: Database, start: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_STATISTICS_S", "0.1")
    submit_many(db, 3)
    start()
    until(lambda: [each.ready for each in db.run(statistics.lane_statistics())] == [3])
    submit_many(db, 1, prefix="more")
    until(lambda: [each.ready for each in db.run(statistics.lane_statistics())] == [4])
    assert db.run(statistics.backlog("default", 60)) == 4


def test_a_duty_that_hangs_or_fails_keeps_no_other_waiting(
    db: Database, conn: Conn, start: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_STATISTICS_S", "0.1")
    monkeypatch.setenv("AGENTOS_CRON_S", "0.1")
    submit_many(db, 1)
    with conn.transaction():
        conn.execute("LOCK TABLE agentos.lane_statistics, agentos.blobs IN ACCESS EXCLUSIVE MODE")
        conn.execute("LOCK TABLE agentos.cron_entries IN ACCESS EXCLUSIVE MODE")
        coordinator = start()
        coordinator.until_said("leading")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: (conn.execute(waiting).fetchone() or (0,))[0] >= 2, what="statistics and cron hang")
        worker_that_dies(db, ttl_s=0.05, claims=1)
        late = db.run(tasks.submit("task-late", "work", "a title", "{}", delay_s=0.1))
        asked = tasks.submit("task-late-too", "work", "a title", "{}", delay_s=60)
        db.run(tasks.with_deadline(asked, ["task-late-too"], 0.1))
        until(lambda: len(ready(conn)) == 2, what="reclaimed and promoted all the same")
        assert late in ready(conn)
        until(lambda: db.run(tasks.task_progress("task-late-too")).status == "failed", what="and its deadline came")
    until(lambda: db.run(statistics.lane_statistics()), what="then the others go on")
    conn.execute("ALTER FUNCTION agentos.take_statistics(float8) RENAME TO is_gone")
    coordinator.until_said('"doing": "statistics"')
    worker_that_dies(db, ttl_s=0.05, claims=1)
    until(lambda: len(ready(conn)) == 2, what="reclaimed beside one that fails")
