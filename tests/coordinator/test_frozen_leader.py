"""A leader that is frozen in the middle of a duty and wakes up when another leads does no harm (cron: test_cron.py)."""

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import Daemon, until
from tests.coordinator.pool import submit_many, worker_that_dies
from tests.store import engine

from agentos.store.calls import tasks
from agentos.store.connect import Database

Conn = psycopg.Connection[Any]
PAST = "clock_timestamp() - interval '1 s'"
BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, %s) > 0"


class Pair:
    """Two coordinators, one of which leads."""

    def __init__(self, start: Callable[..., Daemon], conn: Conn, dsn: str) -> None:
        self.leader = start()
        self.leader.until_said("leading")
        self.other = start()
        self.other.until_said("coordinating")
        self._conn, self._dsn = conn, dsn

    def freeze_amid(self, function: str, table: str, due: str) -> None:
        """Freeze the leader in a function that `due` gives work, before it writes to `table`; the other leads then."""
        with self._conn.transaction():
            self._conn.execute(f"LOCK TABLE agentos.{table} IN SHARE MODE")
            with psycopg.connect(self._dsn, autocommit=True) as beside:  # within a transaction activity is seen once
                assert beside.execute(due.format(past=PAST)).rowcount == 1
                blocked = f"agentos.{function}("
                until(lambda: beside.execute(BLOCKED, (blocked,)).fetchone(), what="it is in the middle")
            self.freeze()

    def freeze(self) -> None:
        """Freeze the leader; the other leads then."""
        heard = len(self.other.lines)
        self.leader.signal(signal.SIGSTOP)
        until(lambda: any('"leading"' in line for line in self.other.lines[heard:]), what="the other leads")

    def thaw(self) -> None:
        """The frozen one goes on where it was, and learns that it leads no more; the roles have changed."""
        heard = len(self.leader.lines)
        self.leader.signal(signal.SIGCONT)
        until(lambda: any("not leading any more" in line for line in self.leader.lines[heard:]), what="it knows")
        self.leader, self.other = self.other, self.leader


@pytest.mark.unsound("a counter is wrong, to see it repaired")
def test_reclaim_promote_deadlines_and_repair_are_done_once_whoever_wakes_up_in_them(
    db: Database, conn: Conn, database_dsn: str, start: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_REPAIR_S", "0.1")
    submit_many(db, 1)
    worker_that_dies(db, ttl_s=600, claims=1)
    db.run(tasks.submit("task-late", "work", "a title", "{}", delay_s=600))
    late = tasks.submit("task-dead", "elsewhere", "a title", "{}")
    db.run(tasks.with_deadline(late, ["task-dead"], 600))
    db.run(tasks.create_task("task-many", "a title", items='[{"kind": "elsewhere"}]'))
    pair = Pair(start, conn, database_dsn)

    expired = "UPDATE agentos.workers SET expires_at = {past}, ttl = interval '0' WHERE label = 'dying'"
    pair.freeze_amid("reclaim", "lease_ready", expired)
    until(lambda: engine.place(db, "task-0") == "ready", what="the lease is taken back")
    pair.thaw()
    reclaimed = "SELECT count(*) FROM agentos.events WHERE event = 'lease_reclaimed'"
    assert conn.execute(reclaimed).fetchone() == (1,)
    assert conn.execute("SELECT crashes FROM agentos.lease_ready WHERE lane < 0").fetchall() == [(1,)]

    pair.freeze_amid("promote", "lease_ready", "UPDATE agentos.scheduled SET run_at = {past}")
    until(lambda: engine.place(db, "task-late") == "ready", what="it is promoted")
    pair.thaw()
    assert engine.count(conn, "lease_ready") == 4

    pair.freeze_amid("expire_tasks", "task_heads", "UPDATE agentos.deadlines SET deadline_at = {past}")
    until(lambda: engine.status(db, "task-dead") == "failed", what="it failed at its deadline")
    pair.thaw()
    ended = "SELECT count(*) FROM agentos.events WHERE task_id = 'task-dead' AND event = 'cancelled'"
    assert conn.execute(ended).fetchone() == (1,)

    pair.freeze()
    conn.execute("UPDATE agentos.task_heads SET open_items = 7 WHERE task_id = 'task-many'")
    counter = "SELECT open_items FROM agentos.task_heads WHERE task_id = 'task-many'"
    until(lambda: conn.execute(counter).fetchone() == (1,), what="the counter is repaired")
    worker = engine.register(db, kinds=["elsewhere"], ttl_s=600)
    held = next(item for item in worker.claim(9) if item.task_id == "task-many")
    worker.complete(held)
    pair.thaw()
    assert engine.status(db, "task-many") == "completed"
    assert conn.execute(counter).fetchone() == (0,)
    assert db.run(tasks.misplaced_items()) == ()
