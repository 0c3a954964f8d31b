"""A migration of the next version replaces the functions under a worker that runs: no attempt is charged for it."""

import asyncio
from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import serving

from agentos.core.app import App, TaskContext
from agentos.store import migrate as migrating
from agentos.store.connect import connect
from agentos.store.migrate import engine_sql, migrate, migrations

WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ ('agentos\\.' || %s)
"""
COUNTERS = "SELECT attempt, failures, crashes FROM agentos.item_places"
CALLS = {"tool": "ledger_begin", "llm": "cache_begin", "checkpoint": "(commit_checkpoint|write)", "complete": ""}


async def waits_or(done: asyncio.Event, conn: psycopg.Connection[Any], function: str) -> None:
    """Until a call of the function waits for a lock, or is through without."""
    async with asyncio.timeout(30):
        while not done.is_set() and conn.execute(WAITING, (function,)).fetchone() == (0,):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("step", CALLS)
@pytest.mark.parametrize("how", ["in place", "whole"])
async def test_calls_that_run_while_the_functions_are_replaced_charge_nothing(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, step: str, how: str
) -> None:
    app, here, go, done = App(dsn=database_dsn), asyncio.Event(), asyncio.Event(), asyncio.Event()

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
        if step != "complete":
            done.set()
        return "done"

    async with serving(app, database_dsn, ttl_s=60):
        handle = await asyncio.to_thread(app.submit, "steps")
        await here.wait()
        if how == "in place":  # every body is another, so that every function is replaced
            sql = engine_sql().replace("$$;", "$$;\n-- next")
            monkeypatch.setattr(migrating, "engine_sql", lambda: sql)
        with connect(database_dsn) as migrator, connect(database_dsn) as conn:
            with migrator.transaction():
                migrator.execute("UPDATE agentos.engine SET digest = 'of another version'")
                assert migrate(migrator).functions
                go.set()
                if step == "complete":
                    await asyncio.sleep(0.3)  # it goes along with a claim, which may be under way or not
                elif how == "whole":
                    await waits_or(done, conn, CALLS[step])
                else:
                    await asyncio.wait_for(done.wait(), 20)  # nobody waits for a migration that has not committed
            assert await asyncio.to_thread(handle.result, 30) == "done"
            assert conn.execute(COUNTERS).fetchall() == [(1, 0, 0)]


async def test_a_worker_goes_on_when_a_numbered_migration_comes_under_it(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is replaced; `/readyz` says meanwhile that the schema is newer."""
    app, known, sql = App(dsn=database_dsn), migrations(), engine_sql()

    @app.task("echo")
    async def echo(_ctx: TaskContext, n: int) -> int:
        return n

    async with serving(app, database_dsn):
        first = await asyncio.to_thread(app.submit, "echo", {"n": 1})
        assert await asyncio.to_thread(first.result, 30) == 1
        more = migrating.Migration(9999, "9999_more.sql", "ALTER TABLE agentos.work_items ADD COLUMN more text;")
        with monkeypatch.context() as newer, connect(database_dsn) as migrator:
            newer.setattr(migrating, "migrations", lambda: (*known, more))
            newer.setattr(migrating, "engine_sql", lambda: sql.replace("$$;", "$$;\n-- next"))
            assert migrate(migrator).applied == ("9999_more.sql",)
        second = await asyncio.to_thread(app.submit, "echo", {"n": 2})
        assert await asyncio.to_thread(second.result, 30) == 2
    with connect(database_dsn) as conn:
        assert conn.execute(COUNTERS).fetchall() == [(1, 0, 0)] * 2
