"""Bar 2: submitting, one at a time by 1 and by 8 clients, and in bulk, beside raw loops that write the same rows.

With 8 clients the bar is for coroutines, as the raw loop's are; eight threads of `App.submit` share one interpreter.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg

from agentos.core.task import TaskManager
from agentos.core.task_id import new_task_id, new_task_ids
from bench import layout, raw
from bench.app import app
from bench.bed import Bed
from bench.clients import Clients, Write, insert_bare, threads
from bench.measure import Figure, in_turns

ISSUE = "2 submit"
SLICE_S = 0.15
"""One client takes turns this short: a stall of the machine then meets everybody, or the median of none."""
CLIENTS = 8


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    yield from _one_by_one(bed, 1, turns=bed.size(20))
    yield from _one_by_one(bed, CLIENTS, turns=bed.rounds)
    yield from _bulk(bed)


def _one_by_one(bed: Bed, clients: int, turns: int) -> Iterator[Figure]:
    whose = "1 client" if clients == 1 else f"{clients} clients"
    seconds = SLICE_S if clients == 1 else 1.0
    with Clients(clients) as rows:
        bare, plain, awaited, product = in_turns(ISSUE, "/s", turns, {
            f"bare INSERT commits, {whose}": lambda: rows.rate(insert_bare, seconds),
            f"raw submit, {whose}": lambda: rows.rate(_raw_submit, seconds),
            f"App.asubmit, {whose}": lambda: rows.rate(_asubmit, seconds),
            f"App.submit, {whose}": lambda: threads(clients, _submit, seconds),
        }).values()  # fmt: skip
    yield bare.figure()
    yield plain.figure(bare).held_to("ratio", "≥", 0.75)
    yield awaited.figure(plain).held_to("ratio", "≥", 0.85)
    blocking = product.figure(plain)
    yield blocking.held_to("ratio", "≥", 0.85) if clients == 1 else blocking


async def _raw_submit(conn: "asyncpg.Connection[Any]") -> None:
    await conn.fetch(layout.SUBMIT, new_task_id(), raw.PAYLOAD, time.time_ns() // 1000)


async def _asubmit(_: "asyncpg.Connection[Any]") -> None:
    await app.asubmit("noop", {"n": 1}, queue="nobody")


def _submit() -> None:
    app.submit("noop", {"n": 1}, queue="nobody")


def _bulk(bed: Bed) -> Iterator[Figure]:
    count = bed.size(20_000)
    manager = TaskManager()
    with Clients(1) as rows:
        many, product, items, task = in_turns(ISSUE, "/s", bed.rounds, {
            "raw bulk, one-item tasks": lambda: count / _seconds(lambda: rows.once(_raw_many(count))),
            "App.submit_many, one-item tasks": lambda: count / _seconds(lambda: _submit_many(count)),
            "raw bulk, items of one task": lambda: count / _seconds(lambda: rows.once(_raw_items(count))),
            "TaskManager.create_task, items of one task": lambda: count / _seconds(lambda: _create(manager, count)),
        }).values()  # fmt: skip
    yield many.figure()
    yield product.figure(many).held_to("value", "≥", 30_000)
    yield items.figure()
    yield task.figure(items).held_to("value", "≥", 60_000)


def _submit_many(count: int) -> None:
    app.submit_many("noop", ({"n": n} for n in range(count)), queue="nobody")


def _create(manager: TaskManager, count: int) -> None:
    manager.create_task("bench", items=[{"kind": "noop", "payload": {"n": n}} for n in range(count)], queue="nobody")


def _raw_many(count: int) -> Write:
    return lambda conn: conn.execute(
        layout.SUBMIT_MANY, new_task_ids(count), [raw.PAYLOAD] * count, time.time_ns() // 1000
    )


def _raw_items(count: int) -> Write:
    keys = [f"item-{n}" for n in range(count)]
    return lambda conn: conn.execute(
        layout.SUBMIT_ITEMS, keys, [raw.PAYLOAD] * count, time.time_ns() // 1000, new_task_id()
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
