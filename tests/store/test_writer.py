"""The coalescing writer: concurrent writes share commits, and each is told its own end."""

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.store import engine

from agentos.store import connect
from agentos.store.calls import checkpoints, items
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.errors import DatabaseUnavailable, InvalidValue, LeaseLost
from agentos.store.run import Call, arun_call
from agentos.store.writer import MOST

EIGHT = range(8)


@pytest.fixture
def worker(db: Database) -> engine.Worker:
    for n in EIGHT:
        engine.submit(db, f"task-{n}")
    return engine.register(db)


@pytest.fixture
def held(worker: engine.Worker) -> tuple[ClaimedItem, ...]:
    return tuple(sorted(worker.claim(8), key=lambda item: item.item_id))


def commit(worker: engine.Worker, item: ClaimedItem, **changes: Any) -> Call[checkpoints.Committed]:
    new = engine.checkpoint(item.task_id, item.item_id, **changes)
    return checkpoints.commit_checkpoint(new, worker.fence(item))


class Wire:
    """What goes over `connect.arun_call`, and what happens to it: `lose(n)` the reply of the n-th message."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, ...]] = []
        self.lost: set[int] = set()
        self.gate: asyncio.Event | None = None
        self.sent = asyncio.Event()
        self._really = arun_call

    async def __call__(self, conn: Any, call: Any) -> Any:
        self.parts.append(call.parts)
        number = len(self.parts)
        self.sent.set()
        if self.gate is not None:
            await self.gate.wait()
        reply = await self._really(conn, call)
        if number in self.lost:
            raise ConnectionError("the reply is lost, on purpose")
        return reply


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(connect, "arun_call", wire)
    return wire


async def all_of(adb: AsyncDatabase, calls: list[Call[Any]]) -> list[Any]:
    return await asyncio.gather(*map(adb.run, calls), return_exceptions=True)


async def test_one_alone_goes_out_at_once_as_itself(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire
) -> None:
    for n in range(1, 4):
        assert (await adb.run(commit(worker, held[0]))).sequence_number == n
    assert wire.parts == [(), (), ()]


async def test_what_is_asked_while_a_commit_is_under_way_shares_the_next(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire, conn: psycopg.Connection[Any]
) -> None:
    async def steps(item: ClaimedItem) -> list[int]:
        return [(await adb.run(commit(worker, item))).sequence_number for _ in range(10)]

    assert await asyncio.gather(*map(steps, held)) == [list(range(1, 11))] * 8
    transactions = conn.execute("SELECT count(DISTINCT xmin::text), count(*) FROM agentos.checkpoints").fetchone()
    assert transactions == (len(wire.parts), 80)
    assert len(wire.parts) <= 12
    assert max(map(len, wire.parts)) == 8


async def test_the_one_that_is_fenced_off_fails_alone(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire
) -> None:
    await adb.run(items.release(worker.worker_id, [(held[3].item_id, held[3].token)]))
    calls = [commit(worker, item) for item in (*held, *held)]
    replies = await all_of(adb, calls)
    assert [type(reply) for reply in replies[3::8]] == [LeaseLost, LeaseLost]
    told = [reply.sequence_number for n, reply in enumerate(replies) if n % 8 != 3]
    assert told == [1] * 7 + [2] * 7


async def test_the_one_that_the_database_refuses_fails_alone(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...]
) -> None:
    calls = [commit(worker, item, snapshot="{" if n == 5 else "{}") for n, item in enumerate(held)]
    replies = await all_of(adb, calls)
    assert isinstance(replies.pop(5), InvalidValue)
    assert [reply.sequence_number for reply in replies] == [1] * 7


async def test_a_waiter_that_is_cancelled_leaves_the_others_alone(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire, db: Database
) -> None:
    wire.gate = asyncio.Event()
    running = [asyncio.create_task(adb.run(commit(worker, item))) for item in held]
    await wire.sent.wait()
    running[2].cancel()  # it waits for the next batch
    wire.sent.clear()
    wire.gate.set()
    wire.gate = asyncio.Event()
    await wire.sent.wait()
    running[4].cancel()  # it is in the batch that was sent
    wire.gate.set()
    replies = await asyncio.gather(*running, return_exceptions=True)
    cancelled = [n for n, reply in enumerate(replies) if isinstance(reply, asyncio.CancelledError)]
    assert cancelled == [2, 4]
    assert [reply.sequence_number for reply in replies if not isinstance(reply, BaseException)] == [1] * 6
    assert db.run(checkpoints.checkpoint_of("task-2", 1)) is None
    assert db.run(checkpoints.checkpoint_of("task-4", 1)) is not None


async def test_when_the_reply_of_a_batch_is_lost_each_asks_again_and_finds_its_step(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire
) -> None:
    calls = [commit(worker, item, step_id=uuid4()) for item in held]
    wire.lost = {2}
    replies = await all_of(adb, calls)
    assert [type(reply) for reply in replies].count(DatabaseUnavailable) == 7
    again = await all_of(adb, calls)
    assert [reply.sequence_number for reply in again] == [1] * 8
    assert (await adb.run(commit(worker, held[7]))).sequence_number == 2


async def test_a_batch_has_so_many_calls_at_most(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire
) -> None:
    replies = await all_of(adb, [commit(worker, item) for item in held for _ in range(12)])
    assert [reply.sequence_number for reply in replies] == [*range(1, 13)] * 8
    assert max(map(len, wire.parts)) == MOST


async def test_a_message_has_a_size(
    adb: AsyncDatabase, worker: engine.Worker, held: tuple[ClaimedItem, ...], wire: Wire
) -> None:
    large = '"' + "x" * (3 * 1024 * 1024) + '"'
    replies = await all_of(adb, [commit(worker, item, snapshot=large) for item in held])
    assert [reply.sequence_number for reply in replies] == [1] * 8
    assert max(map(len, wire.parts)) == 0
