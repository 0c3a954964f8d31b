"""A migration of the next version replaces the functions under a worker that runs: no attempt is charged for it."""

import asyncio
from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import serving

from agentos.core.app import App, TaskContext
from agentos.store.connect import Database, connect
from agentos.store.migrate import migrate

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
COUNTERS = "SELECT attempt, failures, crashes FROM agentos.item_places"


def apply_whole(dsn: str) -> None:
    """What `agentos migrate` of a version does whose functions are others."""
    with connect(dsn) as conn:
        conn.execute("UPDATE agentos.engine SET digest = 'of another version'")
        assert migrate(conn).functions


async def blocked(conn: psycopg.Connection[Any]) -> None:
    """Until a call waits for a lock."""
    async with asyncio.timeout(30):
        while conn.execute(BLOCKED).fetchone() == (0,):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("step", ["tool", "checkpoint", "llm", "complete"])
async def test_a_call_that_runs_while_the_functions_are_replaced_charges_nothing(
    database_dsn: str, db: Database, step: str
) -> None:
    app, here, go = App(dsn=database_dsn), asyncio.Event(), asyncio.Event()

    @app.task("steps")
    async def steps(ctx: TaskContext) -> str:
        here.set()
        await go.wait()
        match step:
            case "tool":
                await ctx.tool("bash", "echo a")
            case "checkpoint":
                await ctx.checkpoint("iteration_end", {"a": 1})
            case "llm":
                await ctx.llm("plan", prompt="a")
        return "done"

    async with serving(app, database_dsn, ttl_s=60):
        handle = await asyncio.to_thread(app.submit, "steps")
        await here.wait()
        with connect(database_dsn) as holder, holder.transaction():
            holder.execute("SELECT FROM agentos.lease_held FOR UPDATE")
            go.set()
            await blocked(holder)
            await asyncio.to_thread(apply_whole, database_dsn)
        assert await asyncio.to_thread(handle.result, 30) == "done"
    with connect(database_dsn) as conn:
        assert conn.execute(COUNTERS).fetchall() == [(1, 0, 0)]
