"""Sleeping tasks cost rows: ten thousand of them on one worker hold no slot, and all wake."""

import asyncio
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import until_counted
from tests.worker.inprocess import serving
from tests.worker.pool import Sweeping

from agentos.core.app import App, TaskContext

MANY = 10_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_ten_thousand_tasks_sleep_on_one_worker_and_all_wake(
    database_dsn: str, conn: psycopg.Connection[Any], clock: Any, sweeping: Sweeping
) -> None:
    app = App(dsn=database_dsn)

    @app.task("sleeper")
    async def sleeper(ctx: TaskContext, n: int) -> int:
        await ctx.sleep(3600)
        return n

    async def until(query: str) -> None:
        await asyncio.to_thread(until_counted, lambda: (conn.execute(query.encode()).fetchone() or (0,))[0], MANY)

    app.submit_many("sleeper", [{"n": n} for n in range(MANY)])
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with serving(app, database_dsn, concurrency=8, ttl_s=7200) as worker:
        await until("SELECT count(*) FROM agentos.waiting WHERE reason = 'sleep'")
        assert not worker.held
        asleep = loop.time()
        clock.advance(3601)
        await until("SELECT count(*) FROM agentos.outcomes WHERE status = 'completed'")
        print(f"{MANY} asleep after {asleep - began:.1f} s, all done {loop.time() - asleep:.1f} s after their time")
    counted = conn.execute("SELECT min(attempt), max(failures), max(crashes) FROM agentos.outcomes").fetchone()
    assert counted == (2, 0, 0)  # on a busy machine some are given back and claimed again, which charges nothing
