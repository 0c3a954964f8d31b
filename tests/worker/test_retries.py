"""What a handler raises decides when it is called again, and that can be seen."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Sweeping

from agentos.core.app import App, Retry, RetryAfter, TaskContext
from agentos.store.calls import tasks, timeline
from agentos.store.connect import Database
from agentos.store.errors import TaskFailed


def failing(dsn: str, exc: Exception, retry: Retry | None) -> tuple[App, list[int]]:
    app, calls = App(dsn=dsn), list[int]()

    @app.task("fails", retry=retry)
    async def fails(ctx: TaskContext) -> None:
        calls.append(ctx.attempt)
        raise exc

    return app, calls


async def scheduled(db: Database, task_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            item = (await asyncio.to_thread(db.run, tasks.task_items(task_id)))[0]
            if item.place == "scheduled":
                return item
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("exc", "retry", "wait_s"), [
    (RetryAfter(500), None, 500), (KeyError("x"), Retry(initial_s=700, max_s=700, jitter=0), 700),
    (TimeoutError(), Retry(overrides={OSError: Retry(initial_s=200, jitter=0)}), 200),
], ids=["RetryAfter", "policy", "override"])  # fmt: skip
async def test_the_next_try_is_when_it_was_said_and_the_event_tells_it(
    database_dsn: str, db: Database, exc: Exception, retry: Retry | None, wait_s: float
) -> None:
    app, _ = failing(database_dsn, exc, retry)
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "fails")
        item = await scheduled(db, handle.task_id)
    assert abs((item.at - datetime.now(UTC)).total_seconds() - wait_s) < 30
    events = db.run(timeline.task_events(handle.task_id, 50))
    failed = next(event for event in events if event.event == "attempt_failed")
    assert datetime.fromisoformat(failed.data["next_try_at"]) == item.at
    assert datetime.fromisoformat(failed.data["claimed_at"]) <= failed.at


@pytest.mark.parametrize(("retry", "asked", "tries"), [
    (Retry(never=(KeyError,)), None, 1), (Retry(retry_on=(OSError,)), None, 1), (Retry(max_attempts=3), None, 3),
    (Retry(max_attempts=3), 2, 2),
], ids=["never", "not in retry_on", "policy's max_attempts", "the submit's max_attempts"])  # fmt: skip
async def test_it_is_tried_as_often_as_declared(
    database_dsn: str, hurrying: Sweeping, retry: Retry, asked: int | None, tries: int
) -> None:
    app, calls = failing(database_dsn, KeyError("x"), retry)
    async with serving(app, database_dsn):
        ended = await outcome(await asyncio.to_thread(lambda: app.submit("fails", max_attempts=asked)))
    assert isinstance(ended, TaskFailed)
    assert len(calls) == tries
