"""A handler whose snapshot grows: what it carries is stored once, and comes back whole."""

import asyncio
from typing import Any

import psycopg
from tests.worker.inprocess import outcome, serving

from agentos.core.app import App, TaskContext
from agentos.core.checkpoints import CheckpointManager
from agentos.store.calls import blobs, workers
from agentos.store.connect import AsyncDatabase

TURNS = 20


async def test_a_conversation_is_stored_once_and_resumed_whole(
    database_dsn: str, adb: AsyncDatabase, conn: psycopg.Connection[Any]
) -> None:
    app = App(dsn=database_dsn)

    @app.task("talks")
    async def talks(ctx: TaskContext) -> list[int]:
        state = ctx.snapshot or {"messages": []}
        came_back = len(state["messages"])
        for turn in range(came_back, TURNS):
            state["messages"].append({"role": "user", "content": f"{turn}" + "word " * 2000})
            await ctx.checkpoint("iteration_end", state)
            if ctx.attempt == 1 and turn == TURNS // 2:
                raise OSError("half-way")
        return [came_back, len(state["messages"]), len(str(state))]

    handle = app.submit("talks", {}, task_id="t")
    async with serving(app, database_dsn):
        while not conn.execute("UPDATE agentos.scheduled SET run_at = '-infinity' RETURNING 1").fetchone():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await adb.run(workers.promote())
        came_back, count, characters = await outcome(handle)
    assert (came_back, count) == (TURNS // 2 + 1, TURNS)
    sizes = {line.what: line.bytes for line in await adb.run(blobs.task_bytes("t"))}
    assert sizes["snapshots"] + sizes["parts"] < 2.5 * characters  # whole they would be ten times as much
    manager = CheckpointManager()
    last = manager.get_last_verified_checkpoint("t")
    assert last is not None
    assert len(last.snapshot["messages"]) == TURNS
    assert manager.rollback_to_checkpoint(last.checkpoint_id).snapshot == last.snapshot
    conn.execute("DELETE FROM agentos.blobs")
    assert manager.verify_checkpoint(last.checkpoint_id) is False


async def test_a_transaction_that_is_rolled_back_leaves_no_parts_that_a_later_checkpoint_counts_on(
    database_dsn: str,
) -> None:
    app = App(dsn=database_dsn)

    @app.task("talks")
    async def talks(ctx: TaskContext) -> list[int]:
        said = ["0" * 70_000]
        await ctx.checkpoint("iteration_end", said)
        said.append("1" * 70_000)
        try:
            async with ctx.transaction():
                await ctx.checkpoint("iteration_end", said)
                raise ValueError("rolled back")
        except ValueError:
            pass
        async with ctx.transaction():
            await ctx.checkpoint("iteration_end", said)
        said.append("2" * 70_000)
        return [(await ctx.checkpoint("iteration_end", said)).sequence_number]

    handle = app.submit("talks", {}, task_id="t")
    async with serving(app, database_dsn):
        assert await outcome(handle) == [3]
    last = CheckpointManager().get_last_verified_checkpoint("t")
    assert last is not None
    assert [each[0] for each in last.snapshot] == ["0", "1", "2"]
