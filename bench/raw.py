"""The ceiling: a plain asyncpg loop over the same layout, with the fence and the outcome, and nothing else.

As a process: `python -m bench.raw LOOP BATCH` says `ready`, waits for a line, drains and prints when it began and
ended and how many it did. LOOP is `lease` (the product's layout) or `status` (a status column).
"""

import asyncio
import json
import math
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import uvloop

from agentos.core.task_id import new_task_ids
from agentos.store.settings import load_settings
from bench import layout

STATEMENTS = {"lease": (layout.CLAIM, layout.COMPLETE), "status": (layout.STATUS_CLAIM, layout.STATUS_COMPLETE)}
PAYLOAD = '{"n":1}'
PLANS = {
    "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan", "jit": "off",
}  # fmt: skip
"""What the product's functions are set to as well: one plan, the index in order, whatever the statistics say."""


async def noop(payload: Any) -> None:
    """What is done for an item."""


async def fill(conn: "asyncpg.Connection[Any]", loop: str, count: int) -> None:
    """Make so many items ready."""
    ids, payloads = new_task_ids(count), [PAYLOAD] * count
    if loop == "lease":
        await conn.execute(layout.SUBMIT_MANY, ids, payloads, time.time_ns() // 1000)
    else:
        await conn.execute(layout.STATUS_FILL, ids, payloads)


async def drain_rate(conn: "asyncpg.Connection[Any]", count: int, batch: int) -> float:
    """Items per second of a drain that ends after `count`: behind them others may wait."""
    began = time.perf_counter()
    done = await drain(conn, "lease", batch, count)
    return done / (time.perf_counter() - began)


async def drain(conn: "asyncpg.Connection[Any]", loop: str, batch: int, count: float = math.inf) -> int:
    """Claim `batch`, run them, complete them, until there are none, or `count` are done; returns how many."""
    text_claim, text_complete = STATEMENTS[loop]
    claim, complete = await conn.prepare(text_claim), await conn.prepare(text_complete)
    worker_id, done = secrets.randbits(62), 0
    while done < count and (rows := await claim.fetch(worker_id, batch)):
        for row in rows:
            await noop(json.loads(row["payload"]))
        items, tokens = [row["item_id"] for row in rows], [row["token"] for row in rows]
        await complete.fetch(worker_id, items, tokens, ["null"] * len(rows))
        done += len(rows)
    return done


def on_loop(work: Callable[["asyncpg.Connection[Any]"], Awaitable[Any]]) -> Any:
    """Run `work` with a connection on a uvloop."""

    async def connected() -> Any:
        conn = await asyncpg.connect(load_settings().dsn, server_settings=PLANS)
        try:
            return await work(conn)
        finally:
            await conn.close()

    return uvloop.run(connected())


async def _process(conn: "asyncpg.Connection[Any]") -> None:
    loop, batch = sys.argv[1], int(sys.argv[2])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    done = await drain(conn, loop, batch)
    print(json.dumps({"began": began, "ended": time.monotonic(), "done": done}), flush=True)


if __name__ == "__main__":
    on_loop(_process)
