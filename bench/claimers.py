"""Bar 8: many connections that claim and complete at once, through the product's own functions. A session's first claim
plans every statement of it, 20 ms: each has made one before the time is taken, as workers have that live for days.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator

import asyncpg
import uvloop

from agentos.core.process import host, new_worker_id, process_identity
from agentos.core.task_id import new_task_ids
from agentos.store.calls import items, tasks, workers
from agentos.store.connect import Database
from agentos.store.run import arun_call
from agentos.store.settings import load_settings
from bench import raw
from bench.bed import Bed
from bench.measure import Bar, Figure, in_turns

ISSUE = "8 claimers"
COUNTS = (2, 8, 32, 64)
LIMIT = 8


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    db = Database.default()
    taken = in_turns(ISSUE, "items/s", bed.rounds, {
        f"{count} connections": lambda count=count: _drain(db, count, bed.size(6_000)) for count in COUNTS  # type: ignore[misc]
    })  # fmt: skip
    best = max(statistics.median(series.turns) for series in taken.values())
    for series in taken.values():
        figure = series.figure()
        yield Figure(
            ISSUE, figure.name, figure.value, figure.unit, figure.low, figure.high, baseline="the best of them",
            ratio=figure.value / best, bar=Bar("ratio", "≥", 0.7),
        )  # fmt: skip


def _drain(db: Database, connections: int, count: int) -> float:
    ready = count + connections * LIMIT
    db.run(tasks.submit_many(new_task_ids(ready), "noop", "noop", [raw.PAYLOAD] * ready, queue="claimers"))
    lanes = db.run(workers.lanes_of(["claimers"], ["noop"]))
    ids = [new_worker_id() for _ in range(connections)]
    for worker_id in ids:
        db.run(
            workers.register_worker(
                worker_id, label="bench", host=host(), pid=1, process=process_identity(), version="0", role="runner",
                ttl_s=600, serves=json.dumps({}),
            )
        )  # fmt: skip
    try:
        return count / uvloop.run(_together(ids, lanes))
    finally:
        for worker_id in ids:
            db.run(workers.retire_worker(worker_id, "stopped"))


async def _together(ids: list[int], lanes: tuple[int, ...]) -> float:
    conns = [await asyncpg.connect(load_settings().dsn) for _ in ids]
    for conn, worker_id in zip(conns, ids, strict=True):
        await _turn(conn, worker_id, lanes)
    began = time.perf_counter()
    await asyncio.gather(*(_claimer(conn, worker_id, lanes) for conn, worker_id in zip(conns, ids, strict=True)))
    seconds = time.perf_counter() - began
    for conn in conns:
        conn.terminate()
    return seconds


async def _claimer(conn: "asyncpg.Connection[asyncpg.Record]", worker_id: int, lanes: tuple[int, ...]) -> None:
    while await _turn(conn, worker_id, lanes):
        pass


async def _turn(conn: "asyncpg.Connection[asyncpg.Record]", worker_id: int, lanes: tuple[int, ...]) -> bool:
    """Claim some and complete them. Returns whether there were any."""
    claimed = (await arun_call(conn, items.claim(worker_id, 0, lanes, LIMIT))).items
    if claimed:
        await arun_call(conn, items.complete(worker_id, [(item.item_id, item.token, "null") for item in claimed]))
    return bool(claimed)
