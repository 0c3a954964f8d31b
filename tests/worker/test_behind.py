"""What waits behind a handler that blocks the loop, given back while the database does not answer."""

import asyncio

import pytest
from tests.core.lossy import Lossy
from tests.store import engine

from agentos.core.wake import Waker
from agentos.store.connect import Database
from agentos.worker.behind import Behind
from agentos.worker.running import Attempt, Held
from agentos.worker.slots import Slots


@pytest.mark.parametrize("arrived", [True, False])
async def test_without_a_reply_the_worker_forgets_the_items_and_then_asks_what_it_holds(
    db: Database, arrived: bool
) -> None:
    """In this order: a worker that asked first would take them for known."""
    for n in range(3):
        engine.submit(db, f"task-{n}")
    worker = engine.register(db)
    held, asked = Held(), asyncio.Event()
    left: list[int] = []

    async def run(_: Attempt) -> None:
        raise AssertionError("nothing begins")

    def unsure() -> None:
        left.append(len(held))
        asked.set()

    slots = Slots(2, run)
    for item in worker.claim(3):
        held.add(attempt := Attempt(item, worker.worker_id, 1))
        slots.queue.append(attempt)
    behind = Behind(Lossy(db, {"release"}, before=not arrived), slots, held, Waker(db), unsure)  # type: ignore[arg-type]
    behind.take()
    behind.give_back()
    await asyncio.wait_for(asked.wait(), 10)
    assert (left, len(slots.queue)) == ([0], 0)
