"""A running handler is parked at its next recorded call or after its next checkpoint, and goes on from there."""

import asyncio
from typing import Any

import pytest
from tests.worker.inprocess import outcome, serving
from tests.worker.test_waits import until

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import ConfigInvalid, TaskCancelled


@pytest.mark.parametrize("where", ["tool", "checkpoint", "llm"])
async def test_a_handler_is_parked_where_it_next_records_something(database_dsn: str, db: Database, where: str) -> None:
    app, done = App(dsn=database_dsn), []
    started, go_on = asyncio.Event(), asyncio.Event()

    def model(_prompt: Any) -> str:
        done.append("two")
        return "text"

    @app.task("steps")
    async def steps(ctx: TaskContext) -> list[str]:
        if ctx.snapshot is None:
            await ctx.tool("one", 1, execute=lambda _call, _arguments: done.append("one"))
        started.set()
        await go_on.wait()
        if where == "checkpoint" and ctx.snapshot is None:
            await ctx.checkpoint("manual_checkpoint", {"at": 1})
        if where == "llm":
            await ctx.llm("op", prompt="p", generate=model)
        else:
            await ctx.tool("two", 2, execute=lambda _call, _arguments: done.append("two"))
        return list(done)

    async with serving(app, database_dsn, beat_s=0.05) as worker:
        handle = app.submit("steps")
        await asyncio.wait_for(started.wait(), 10)
        assert await handle.apause() == "running"
        attempt = next(iter(worker.held.attempts.values()))
        await until(lambda: attempt.paused)
        go_on.set()
        await until(lambda: handle.status() == "paused")
        assert done == ["one"]
        (item,) = db.run(tasks.task_items(handle.task_id))
        assert (item.place, item.failures, item.crashes) == ("waiting", 0, 0)
        await handle.aresume()
        assert await outcome(handle) == ["one", "two"]


async def test_children_are_paused_and_resumed_with_their_parent(database_dsn: str, db: Database) -> None:
    app, ran = App(dsn=database_dsn), []

    @app.task("parent")
    async def parent(ctx: TaskContext) -> Any:
        return await ctx.gather(await ctx.spawn("child", {}, queue="later"))

    @app.task("child")
    async def child(ctx: TaskContext) -> str:
        ran.append(ctx.task_id)
        return "done"

    handle = app.submit("parent")
    async with serving(app, database_dsn):
        await until(lambda: handle.status() == "waiting")
    (child_id,) = [t.task_id for t in db.run(tasks.list_tasks()) if t.kind == "child"]
    assert handle.pause() == "paused"
    assert app.handle(child_id).status() == "paused"
    handle.resume()
    assert app.handle(child_id).status() == "created"
    assert ran == []


async def test_a_blocking_handler_is_parked_too(database_dsn: str, db: Database) -> None:
    app = App(dsn=database_dsn)
    runs: list[int] = []

    @app.task("plain")
    def plain(ctx: BlockingContext) -> int:
        attempt: int = ctx.attempt
        runs.append(attempt)
        while not ctx.snapshot:
            ctx.checkpoint("manual_checkpoint", {"attempt": ctx.attempt})
        return attempt

    async with serving(app, database_dsn, beat_s=0.05):
        handle = app.submit("plain")
        await until(lambda: runs)
        await handle.apause()
        await until(lambda: handle.status() == "paused")
        await handle.aresume()
        assert await outcome(handle) == 2


async def test_the_grace_of_a_cancel_can_be_set(database_dsn: str) -> None:
    app = App(dsn=database_dsn)
    started, never = asyncio.Event(), asyncio.Event()

    @app.task("stubborn", cancel_grace_s=0.01)
    async def stubborn(ctx: TaskContext) -> None:
        started.set()
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(ConfigInvalid):
        app.task("wrong", cancel_grace_s=-1)
    async with serving(app, database_dsn, beat_s=0.05, cancel_grace_s=3600) as worker:
        handle = app.submit("stubborn")
        await asyncio.wait_for(started.wait(), 10)
        attempt = next(iter(worker.held.attempts.values()))
        assert attempt.grace_s == 0.01
        handle.cancel()
        assert isinstance(await outcome(handle), TaskCancelled)
        never.set()
