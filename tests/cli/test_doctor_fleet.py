"""`agentos doctor`: what keeps dead rows, what does not fit together, what stands still; each of it real."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.cli.test_doctor import findings, told
from tests.coordinator.daemon import until

from agentos.core.process import host, new_worker_id
from agentos.store.calls import tasks, timeline, workers
from agentos.store.calls.statistics import take_statistics
from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate
from agentos.testing.clock import Clock

Conn = psycopg.Connection[Any]


def data_of(db: Database, name: str, **asked: Any) -> list[dict[str, Any]]:
    return [each.data for each in db.run(timeline.findings(**asked)) if each.finding == name]


def test_a_clock_that_differs_is_a_warning(agentos: Command, db: Database) -> None:
    worker = HandWorker(db)
    db.run(workers.beat(worker.worker_id, 0, 999))
    assert "clock_skew" not in findings(db)
    db.run(workers.beat(worker.worker_id, 0, -4000))
    done = agentos("doctor", "--json")
    assert told(done, "clock_skew")["data"] == {"host": host(), "skew_s": -4.0, "pid": 1}
    assert told(done, "clock_skew")["severity"] == "warning"
    strict = agentos("doctor", "--strict")
    assert strict.returncode == 1
    assert "differs from the database's by -4.0 s" in strict.stdout


def test_the_severity_is_the_exit_code(agentos: Command, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a durable pool: the test server's own findings are taken away where they are made."""
    db.run(timeline.findings())
    with db.connection() as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION agentos.server_findings(p_old_s float8) RETURNS TABLE (finding text, data json)"
            " LANGUAGE sql AS $$ SELECT 'x', '{}'::json WHERE false $$"
        )
    assert agentos("doctor").returncode == 0
    worker = HandWorker(db)
    db.run(workers.beat(worker.worker_id, 2500))
    done = agentos("doctor", "--json")
    assert done.returncode == 0
    assert told(done, "loop_lag")["data"]["lag_s"] == 2.5
    assert agentos("doctor", "--strict").returncode == 1
    db.run(tasks.submit("task-1", "shell", "a title", "{}"))
    assert agentos("doctor").returncode == 1


def test_the_clock_of_this_host(agentos: Command, db: Database) -> None:
    with db.connection() as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION agentos.server_time() RETURNS timestamptz LANGUAGE sql AS $$ SELECT"
            " clock_timestamp() + interval '1 hour' $$"
        )
    found = told(agentos("doctor", "--json"), "clock_skew")
    assert 3590 < found["data"]["skew_s"] < 3610


def test_mixed_versions(db: Database, conn: Conn) -> None:
    HandWorker(db)
    HandWorker(db)
    assert "version_skew" not in findings(db)
    conn.execute(
        "UPDATE agentos.workers SET version = '0.2.0' WHERE worker_id = (SELECT max(worker_id) FROM agentos.workers)"
    )
    assert findings(db)["version_skew"]["versions"] == {"0": 1, "0.2.0": 1}


def test_more_workers_than_connections(db: Database, conn: Conn) -> None:
    usable = conn.execute(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    ).fetchone()
    assert usable is not None
    HandWorker(db)
    assert "connection_budget" not in findings(db)
    conn.execute(
        "INSERT INTO agentos.workers SELECT (jsonb_populate_record(w, jsonb_build_object('worker_id', n))).*"
        " FROM agentos.workers w, generate_series(1, %s) n", [usable[0] // 4],
    )  # fmt: skip
    found = findings(db)["connection_budget"]
    assert (found["usable"], found["workers"]) == (usable[0], usable[0] // 4 + 1)
    assert found["needed"] > found["usable"]


def test_a_statement_that_waits_for_a_lock_and_who_holds_it(db: Database, database_dsn: str) -> None:
    HandWorker(db)
    with psycopg.connect(database_dsn) as holder, psycopg.connect(database_dsn, application_name="late") as waiter:
        holder.execute("SELECT 1 FROM agentos.workers FOR UPDATE")
        thread = threading.Thread(target=lambda: waiter.execute("UPDATE agentos.workers SET loop_lag_ms = 0"))
        thread.start()
        try:
            (found,) = until(lambda: data_of(db, "blocked", old_transaction_s=0))
        finally:
            holder.rollback()
            thread.join()
        assert (found["application"], found["blockers"]) == ("late", [holder.info.backend_pid])
        assert data_of(db, "blocked", old_transaction_s=0) == []


def test_an_attempt_that_records_nothing(db: Database, clock: Clock) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db, ttl_s=86_400)
    item = worker.claim()
    assert "silent_attempt" not in findings(db)
    clock.advance(4000)
    found = findings(db)["silent_attempt"]
    assert (found["task_id"], found["item_id"], found["worker"]) == ("task-1", item.item_id, "by-hand")
    assert data_of(db, "silent_attempt", silent_s=5000) == []


def test_a_leader_that_does_not_count(db: Database, clock: Clock) -> None:
    db.run(take_statistics(10))
    clock.advance(400)
    db.run(workers.lead("coordinator", new_worker_id(), 60))
    assert findings(db)["counts_old"]["age_s"] >= 400
    db.run(take_statistics(10))
    assert "counts_old" not in findings(db)


def test_tasks_that_failed_are_only_told(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db)
    worker.fail(worker.claim())
    found = told(agentos("doctor", "--json"), "failed_tasks")
    assert (found["severity"], found["data"]) == ("note", {"items": 1, "task_id": "task-1"})


def test_tables_that_are_not_vacuumed(db: Database, conn: Conn) -> None:
    conn.execute("ALTER TABLE agentos.lease_ready RESET (autovacuum_vacuum_scale_factor)")
    conn.execute("ALTER TABLE agentos.lease_ready SET (autovacuum_enabled = off)")
    found = findings(db)
    assert found["autovacuum_off"] == {"setting": "autovacuum_enabled", "table": "lease_ready"}
    assert found["vacuum_settings"] == {
        "table": "lease_ready", "missing": ["autovacuum_vacuum_scale_factor = 0"],
    }  # fmt: skip


def test_a_table_full_of_dead_rows(db: Database, conn: Conn) -> None:
    conn.execute("ALTER TABLE agentos.scheduled SET (autovacuum_enabled = off)")
    conn.execute("INSERT INTO agentos.scheduled SELECT n, 'infinity', 1, 1, 0, 0, 0 FROM generate_series(1, 30000) n")
    conn.execute("DELETE FROM agentos.scheduled")
    conn.execute("SELECT pg_stat_force_next_flush()")
    found = until(lambda: next(iter(data_of(db, "bloated")), None))
    assert found is not None
    assert (found["table"], found["live"]) == ("scheduled", 0)
    assert found["dead"] > 25_000


def test_a_server_without_autovacuum_and_a_slot_that_nobody_reads(own_server: Callable[..., EmbeddedServer]) -> None:
    server = own_server({"fsync": "off", "autovacuum": "off", "wal_level": "replica", "max_replication_slots": "4"})
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
        conn.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    db = Database(dsn)
    try:
        found = {each.finding: each.data for each in db.run(timeline.findings())}
        assert found["autovacuum_off"] == {"setting": "autovacuum", "table": None}
        assert (found["replication_slot"]["slot"], found["replication_slot"]["type"]) == ("gone", "physical")
    finally:
        db.close()
