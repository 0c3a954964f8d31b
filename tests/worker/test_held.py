"""Two attempts at one item in one process: what the former one's end may not do to the later one."""

import asyncio

from tests.store import engine
from tests.worker.inprocess import outcome, serving

from agentos.core.app import App, TaskContext
from agentos.store.calls import items
from agentos.store.connect import Database
from agentos.store.errors import TaskFailed
from agentos.worker.handlers import abandoned
from agentos.worker.running import Attempt, Held


def test_the_end_of_a_former_attempt_leaves_the_later_one_held(db: Database) -> None:
    """Else the worker would give back what it runs: the next comparison with the database finds it unknown."""
    engine.submit(db)
    worker, held = engine.register(db), Held()
    former = Attempt(worker.claim()[0], worker.worker_id)
    held.add(former)
    db.run(items.release(worker.worker_id, [(former.item.item_id, former.item.token)]))
    later = Attempt(worker.claim()[0], worker.worker_id)
    held.add(later)
    held.remove(former)
    assert list(held.attempts.values()) == [later]
    held.remove(later)
    assert not held.attempts


async def test_a_handler_that_ends_after_it_was_left_alone_completes_nothing_and_frees_no_second_slot(
    database_dsn: str,
) -> None:
    app, may_end = App(dsn=database_dsn), asyncio.Event()

    @app.task("late", max_attempts=1, timeout_s=0.1, cancel_grace_s=0.1)
    async def late(_ctx: TaskContext) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await may_end.wait()
        return "late"

    handle = app.submit("late")
    async with serving(app, database_dsn, concurrency=2) as worker:
        assert isinstance(await outcome(handle), TaskFailed)
        (handler,) = abandoned
        may_end.set()
        await asyncio.wait({handler})
        assert worker.slots.free == 2
        assert not worker.held
        assert isinstance(await outcome(handle), TaskFailed)
