"""What submits hand to a worker that waits: it runs once, wherever the worker, its loop or a notice is lost."""

import asyncio
import signal
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import until
from tests.core.lossy import Lossy
from tests.store import engine
from tests.store.test_hand_over import STANDS_BY, handing
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Pool

from agentos.core.app import App, TaskContext, preparation
from agentos.store.connect import Database, OnConnection, connect
from agentos.store.counts import counts
from agentos.worker.process import Worker

HELD = "SELECT item_id, claim_no FROM agentos.lease_held ORDER BY 1"


async def stands_by(worker: Worker) -> None:
    async with asyncio.timeout(20):
        while not (worker.vitals.heartbeat and worker.vitals.heartbeat.standing_by):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of the process may have traced: such a submit says more, and hands nothing over."""
    monkeypatch.setattr(preparation, "may_be_traced", lambda: False)


@pytest.fixture
async def waiter(database_dsn: str) -> "Waiter":
    return Waiter(database_dsn)


class Waiter:
    """An app whose items say that they began and wait for `go`."""

    def __init__(self, dsn: str) -> None:
        self.app = App(dsn=dsn)
        self.began: list[tuple[str, int]] = []
        self.go = asyncio.Event()
        self.app.task("waits")(self.waits)

    async def waits(self, ctx: TaskContext) -> str:
        self.began.append((ctx.task_id, ctx.attempt))
        await self.go.wait()
        return "told"

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.began) < count:  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.01)


async def test_a_submit_hands_its_item_to_the_worker_that_waits_and_it_runs_once(
    database_dsn: str, waiter: Waiter, conn: psycopg.Connection[Any]
) -> None:
    before = counts.handed_items
    waiter.go.set()
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        await stands_by(worker)
        handle = waiter.app.submit("waits")
        assert await outcome(handle) == "told"
    assert counts.handed_items == before + 1
    assert waiter.began == [(handle.task_id, 1)]
    assert conn.execute("SELECT attempt, crashes FROM agentos.outcomes").fetchall() == [(1, 0)]


async def test_without_a_notice_the_next_poll_finds_it(database_dsn: str, db: Database, waiter: Waiter) -> None:
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        await stands_by(worker)
        for n in range(2):  # by an idle poll, and by one that has something to do
            await asyncio.to_thread(db.run, handing(f"task-{n}", "waits"))
            await waiter.begun(n + 1)
        waiter.go.set()
    assert waiter.began == [("task-0", 1), ("task-1", 1)]


async def test_one_that_is_busy_stands_by_no_more_until_it_has_room_again(
    database_dsn: str, db: Database, waiter: Waiter, conn: psycopg.Connection[Any]
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        await stands_by(worker)
        for n in range(2):
            engine.submit(db, f"task-{n}", kind="waits", version=0)
        await waiter.begun(2)
        await asyncio.to_thread(until, lambda: conn.execute(STANDS_BY).fetchone() == (0,))
        await asyncio.to_thread(db.run, handing("later", "waits"))
        assert engine.place(db, "later") == "ready"
        waiter.go.set()
        await waiter.begun(3)
        await stands_by(worker)


async def test_more_than_there_are_slots_is_given_back_uncharged_and_runs_when_there_are(
    database_dsn: str, db: Database, waiter: Waiter, conn: psycopg.Connection[Any]
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        engine.submit(db, "before", kind="waits", version=0)
        await waiter.begun(1)
        await stands_by(worker)
        with connect(database_dsn) as both, both.transaction():
            for n in range(2):
                OnConnection(both).run(handing(f"task-{n}", "waits"))
        await waiter.begun(2)
        await asyncio.to_thread(until, lambda: "ready" in (engine.place(db, "task-0"), engine.place(db, "task-1")))
        assert worker.slots.free == 0
        waiter.go.set()
        await waiter.begun(3)
    assert sorted(task_id for task_id, _ in waiter.began) == ["before", "task-0", "task-1"]
    assert conn.execute("SELECT attempt, crashes FROM agentos.outcomes ORDER BY 1").fetchall() == [
        (1, 0), (1, 0), (2, 0),
    ]  # fmt: skip


async def test_a_drain_waits_for_a_hand_over_under_way_and_gives_the_item_back(
    database_dsn: str, db: Database, waiter: Waiter, conn: psycopg.Connection[Any]
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        await stands_by(worker)
        with connect(database_dsn) as submitting, submitting.transaction():
            OnConnection(submitting).run(handing("task-1", "waits"))
            worker.stop()
            draining = "SELECT state FROM agentos.workers"
            await asyncio.to_thread(until, lambda: conn.execute(draining).fetchone() == ("draining",))
    assert engine.place(db) == "ready"
    assert conn.execute("SELECT attempt, failures, crashes FROM agentos.lease_ready").fetchall() == [(1, 0, 0)]
    assert waiter.began == []
    assert engine.count(conn, "offers") == 0


@pytest.mark.parametrize("replies", [True, False])
async def test_what_the_watching_thread_has_given_back_begins_under_a_new_lease_only(
    database_dsn: str, db: Database, waiter: Waiter, conn: psycopg.Connection[Any], replies: bool
) -> None:
    waiter.go.set()
    async with serving(waiter.app, database_dsn, concurrency=2) as worker:
        await stands_by(worker)
        behind = worker.vitals.behind
        assert behind is not None
        if not replies:
            behind.db = Lossy(db, {"release"}, before=True)  # type: ignore[assignment]
        db.run(handing("task-1", "waits"))
        behind.stalled()  # with the loop, which does not run before this test awaits something
        until(lambda: conn.execute(HELD).fetchall() == [] if replies else behind.db.lost)  # type: ignore[attr-defined]
        await waiter.begun(1)
    assert waiter.began == [("task-1", 2)]
    assert conn.execute("SELECT attempt, crashes FROM agentos.outcomes").fetchall() == [(2, 0)]


async def test_an_adoption_begins_what_was_just_handed_over(
    database_dsn: str, db: Database, waiter: Waiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=8) as worker:
        await stands_by(worker)
        monkeypatch.setattr("agentos.worker.process.COMPARE_S", 0.0)
        for n in range(3):
            db.run(handing(f"task-{n}", "waits"))
            worker.wake()
            await waiter.begun(n + 1)
        waiter.go.set()
    assert waiter.began == [(f"task-{n}", 1) for n in range(3)]


async def test_one_that_is_full_stands_down_though_its_loop_never_waits(
    database_dsn: str, waiter: Waiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=1) as worker:
        await stands_by(worker)
        monkeypatch.setattr(worker, "_wait_for_change", lambda _: asyncio.sleep(0.01))
        await asyncio.to_thread(waiter.app.submit, "waits")
        await waiter.begun(1)
        heartbeat = worker.vitals.heartbeat
        assert heartbeat is not None
        await asyncio.to_thread(until, lambda: not heartbeat.standing_by)
        monkeypatch.undo()
        waiter.go.set()


async def test_however_much_is_handed_over_every_other_turn_completes_and_claims(
    database_dsn: str, db: Database, waiter: Waiter
) -> None:
    async with serving(waiter.app, database_dsn, concurrency=8) as worker:
        await stands_by(worker)
        behind = worker.vitals.behind
        assert behind is not None
        assert behind.handed is not None
        db.run(handing("task-0", "waits"))
        while not await behind.handed.fetch(20):  # a poll of the worker was there before
            db.run(handing(f"task-{len(waiter.began)}", "waits"))
        behind.handed.told = True
        assert [behind.handed.is_due(), behind.handed.is_due()] == [False, True]
        waiter.go.set()


# -- in processes -----------------------------------------------------------------------------------------------------


def hand(pool: Pool, kind: str, task_id: str = "task-1") -> None:
    """Without a notice."""
    until(lambda: pool.row(STANDS_BY) == (1,))
    pool.db.run(handing(task_id, kind))
    assert pool.row("SELECT count(*) FROM agentos.lease_held WHERE claim_no = -1") == (1,)


def test_a_worker_that_is_killed_before_it_fetches_what_it_was_handed_loses_it_to_another(pool: Pool) -> None:
    """Stopped, it cannot fetch; its sessions and its last beat are those of one that lives."""
    victim = pool.worker(ttl=15)
    until(lambda: pool.row(STANDS_BY) == (1,))
    victim.signal(signal.SIGSTOP)
    handle = pool.submit("quick", n=1)
    assert len(pool.rows(HELD)) == 1
    victim.kill()
    pool.coordinator()
    pool.worker()
    assert handle.result(20) == 1
    assert pool.counters(handle) == (2, 0, 1)


def test_what_is_handed_over_behind_a_handler_that_blocks_the_loop_is_given_back(pool: Pool) -> None:
    blocked = pool.worker(ttl=60, concurrency=4)
    until(lambda: pool.row(STANDS_BY) == (1,))
    pool.submit("numbered", n=0, block_at=0)
    pool.until_effect("began")
    pool.db.run(handing("task-1", "quick"))
    until(lambda: engine.place(pool.db) == "ready", timeout_s=2.5)
    assert pool.rows("SELECT crashes FROM agentos.lease_ready") == [(0,)]
    until(lambda: pool.row(STANDS_BY) == (0,))
    pool.log.with_name("go").touch()
    until(lambda: engine.status(pool.db) in ("completed", "failed"))
    assert blocked.process.poll() is None


def test_when_its_beats_session_broke_it_looks_at_once(pool: Pool) -> None:
    pool.worker(ttl=15, env={"AGENTOS_POLL_S": "60"})
    hand(pool, "quick")
    pool.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'agentos-beat%%'"
    )
    until(lambda: engine.status(pool.db) in ("completed", "failed"), timeout_s=15)
