"""What a worker holds and has not begun is given back, also when the database does not answer just then."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import until
from tests.worker.inprocess import serving

from agentos.core.app import App, TaskContext
from agentos.core.process import monotonic
from agentos.store import connect
from agentos.store.run import arun_call
from agentos.worker import pace, process

QUICK = 40
"""So many items end at once; the others wait to be told, and behind them is what was prefetched."""
HELD = "SELECT count(*) FROM agentos.lease_held"
CHARGED = "SELECT max(crashes) FROM agentos.lease_ready"


class Wire:
    """`once`: at the first call of a function, of claims the first that takes something, `then` is called, and no reply
    comes; unless `reach` the call itself is not made either. `made`: the functions that answered.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.made: list[str] = []
        self._faults: dict[str, tuple[bool, bool, Callable[[], object]]] = {}

    def once(self, name: str, *, reach: bool, then: Callable[[], object] = lambda: None, reply: bool = False) -> None:
        self._faults[name] = reach, reply, then

    async def __call__(self, conn: Any, call: Any) -> Any:
        name = call.sql.partition("agentos.")[2].partition("(")[0]
        reach, reply, then = self._faults.get(name, (True, True, None))
        answer: Any = await arun_call(conn, call) if reach else None
        self.made.append(name)
        if then is None or (name == "claim" and not answer.items):
            return answer
        del self._faults[name]
        then()
        if reply:
            return answer
        self.failed.append(name)
        raise ConnectionError("no reply, on purpose")


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(connect, "arun_call", wire)
    return wire


class Numbered:
    """An app whose items say that they begin; from QUICK on they wait for `go`."""

    def __init__(self, dsn: str) -> None:
        self.app = App(dsn=dsn)
        self.began: Counter[int] = Counter()
        self.waiting = 0
        self.go = asyncio.Event()
        self.app.task("numbered")(self.numbered)

    async def numbered(self, ctx: TaskContext, n: int) -> None:
        self.began[n] += 1
        if n >= QUICK:
            self.waiting += 1
            await self.go.wait()

    def submit(self, count: int, first: int = 0) -> None:
        self.app.submit_many("numbered", [{"n": n} for n in range(first, first + count)])


@pytest.fixture
async def numbered(database_dsn: str) -> Numbered:
    return Numbered(database_dsn)


async def all_ended(conn: psycopg.Connection[Any], count: int) -> None:
    await asyncio.to_thread(until, lambda: conn.execute("SELECT count(*) FROM agentos.outcomes").fetchone() == (count,))


@pytest.mark.parametrize("reach", [True, False])
async def test_what_is_given_back_without_a_reply_begins_nowhere_under_the_old_lease(
    numbered: Numbered, database_dsn: str, wire: Wire, conn: psycopg.Connection[Any], *, reach: bool
) -> None:
    numbered.submit(200)
    wire.once("release", reach=reach, then=numbered.go.set)  # the slots are free while nobody knows what became of it
    async with serving(numbered.app, database_dsn, concurrency=4):
        await all_ended(conn, 200)
    assert wire.failed == ["release"]
    assert set(numbered.began.values()) == {1}
    assert conn.execute("SELECT max(failures), max(crashes) FROM agentos.outcomes").fetchone() == (0, 0)


async def test_a_cancel_and_a_pause_reach_items_that_have_not_begun(
    numbered: Numbered, database_dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (pace, process):
        monkeypatch.setattr(each, "WINDOW_S", 3600.0)
    numbered.submit(200)
    async with serving(numbered.app, database_dsn, concurrency=4, beat_s=0.2) as worker, asyncio.timeout(40):
        while numbered.waiting < 4 or len(worker.slots.queue) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        *_, cancelled, paused = worker.slots.queue
        await numbered.app.handle(cancelled.item.task_id).acancel()
        handle = numbered.app.handle(paused.item.task_id)
        await asyncio.to_thread(handle.pause)
        while not (cancelled.stop and paused.paused):  # noqa: ASYNC110  until a beat has said so
            await asyncio.sleep(0.01)
        numbered.go.set()
        await all_ended(conn, 199)
        never = {cancelled.item.payload["n"], paused.item.payload["n"]}
        assert set(numbered.began) == set(range(200)) - never
        assert conn.execute("SELECT count(*) FROM agentos.outcomes WHERE status = 'cancelled'").fetchone() == (1,)
        await asyncio.to_thread(handle.resume)
        await all_ended(conn, 200)
    assert set(numbered.began.values()) == {1}
    assert conn.execute("SELECT max(failures), max(crashes) FROM agentos.outcomes").fetchone() == (0, 0)


async def test_items_of_a_claim_without_a_reply_are_given_back_when_the_first_try_fails(
    numbered: Numbered, database_dsn: str, wire: Wire, conn: psycopg.Connection[Any]
) -> None:
    numbered.submit(4)
    wire.once("claim", reach=True)
    wire.once("release", reach=False)
    async with serving(numbered.app, database_dsn, concurrency=4):
        await all_ended(conn, 4)  # long before memory and database are compared as a matter of course
    assert wire.failed == ["claim", "release"]


async def test_a_drain_gives_back_the_items_of_a_claim_without_a_reply(
    numbered: Numbered, database_dsn: str, wire: Wire, conn: psycopg.Connection[Any]
) -> None:
    numbered.submit(4)
    async with serving(numbered.app, database_dsn, concurrency=4) as worker:
        wire.once("claim", reach=True, then=worker.drain)
        await worker.stopping.wait()
    assert conn.execute(HELD).fetchone() == (0,)
    assert conn.execute(CHARGED).fetchone() == (0,)
    assert not numbered.began


async def test_a_drain_gives_back_what_has_not_begun_when_the_first_try_fails(
    numbered: Numbered, database_dsn: str, wire: Wire, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it is neither begun while the worker drains nor kept until the grace is over."""
    for each in (pace, process):
        monkeypatch.setattr(each, "WINDOW_S", 3600.0)  # what is prefetched stays
    numbered.submit(400)
    async with asyncio.timeout(20):
        async with serving(numbered.app, database_dsn, concurrency=4, grace_s=3600) as worker:
            while numbered.waiting < 4 or not worker.slots.queue:  # noqa: ASYNC110  nothing tells of a queue
                await asyncio.sleep(0.01)
            began = len(numbered.began)
            wire.once("release", reach=False, then=numbered.go.set)
    assert wire.failed == ["release"]
    assert len(numbered.began) == began
    assert conn.execute(HELD).fetchone() == (0,)
    assert conn.execute(CHARGED).fetchone() == (0,)


async def test_what_a_claim_brings_behind_a_second_signal_is_handed_back_now(
    numbered: Numbered, database_dsn: str, wire: Wire, conn: psycopg.Connection[Any]
) -> None:
    numbered.submit(4, first=QUICK)
    async with serving(numbered.app, database_dsn, concurrency=4, grace_s=3600) as worker:

        def twice() -> None:
            worker.stop()
            worker.stop()

        wire.once("claim", reach=True, then=twice, reply=True)
        await worker.stopping.wait()
        await asyncio.to_thread(until, lambda: conn.execute(HELD).fetchone() == (0,))
        assert conn.execute(CHARGED).fetchone() == (0,)


async def test_an_item_that_was_stopped_for_want_of_a_beat_runs_again_soon_when_beats_come_after_all(
    database_dsn: str, wire: Wire, conn: psycopg.Connection[Any]
) -> None:
    """It is held still, by nobody here, and its handler ended after memory and database had been compared."""
    app, told, may_end, again = App(dsn=database_dsn), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.task("slow_to_end")
    async def slow_to_end(ctx: TaskContext) -> None:
        if ctx.attempt > 1:
            again.set()
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            await may_end.wait()
            raise

    app.submit("slow_to_end")
    async with serving(app, database_dsn) as worker, asyncio.timeout(20):
        while not worker.held:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
        heartbeat = worker.vitals.heartbeat
        assert heartbeat is not None
        while not told.is_set():  # a beat may come in between
            heartbeat._alive_since = monotonic() - 0.95 * heartbeat.ttl_s
            await asyncio.sleep(0.01)
        heartbeat._alive_since = monotonic()
        while "adopt" not in wire.made:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        may_end.set()
        await again.wait()
    assert conn.execute("SELECT attempt, failures, crashes FROM agentos.outcomes").fetchone() == (2, 0, 0)
