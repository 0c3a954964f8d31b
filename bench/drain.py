"""Bar 1: how fast workers drain no-ops, beside raw loops over the same layout and a status column."""

import time
from collections.abc import Iterator

from agentos.core.app import App
from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.store.connect import Database
from bench import raw
from bench.bed import Bed
from bench.measure import Figure, Series, in_turns
from bench.processes import raw_drain, until, workers

ISSUE = "1 drain"
PREFETCH, STRICT = 200, 8
STATISTICS_S = 1.5
"""A server process tells what it did once a second, at most."""
WARM = 0.1
"""The first tenth is not counted, of none of them."""
ENDED = "SELECT count(*), max(finished_at) FROM agentos.outcomes WHERE item_id = ANY (%s)"
COST = """
    SELECT (pg_current_wal_lsn() - '0/0')::float8, xact_commit FROM pg_stat_database
     WHERE datname = current_database()
"""
RATE = """
    SELECT extract(epoch FROM max(finished_at) - min(finished_at))::float8, count(*)
      FROM (SELECT finished_at FROM agentos.outcomes WHERE item_id = ANY (%s) ORDER BY finished_at OFFSET %s) o
"""


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    many, few = bed.size(20_000), bed.size(3_000)
    with (
        workers(bed, "one", "--concurrency", "8"),
        workers(bed, "strict", "--concurrency", "8", "--prefetch", "0"),
        workers(bed, "two", "--concurrency", "8", count=2),
        workers(bed, "wide", "--concurrency", "1000"),
    ):
        taken = in_turns(ISSUE, "items/s", bed.rounds, {
            "raw loop, prefetch 200": lambda: _raw("lease", PREFETCH, 1, many),
            "raw loop, strictly 8": lambda: _raw("lease", STRICT, 1, few),
            "raw loop, prefetch 200, 2 processes": lambda: _raw("lease", PREFETCH, 2, 2 * many),
            "status column, prefetch 200": lambda: _raw("status", PREFETCH, 1, many),
            "status column, strictly 8": lambda: _raw("status", STRICT, 1, few),
            "agentos-worker --concurrency 8": lambda: _product(bed, "one", many // 2),
            "agentos-worker --concurrency 8 --prefetch 0": lambda: _product(bed, "strict", few),
            "2 agentos-worker --concurrency 8": lambda: _product(bed, "two", many // 2),
            "agentos-worker --concurrency 1000": lambda: _product(bed, "wide", many // 2),
        })  # fmt: skip
        wal, commits = _cost(bed, "one", many)
    yield from _figures(list(taken.values()))
    yield Figure("7 steady", "WAL per item at full drain", wal, "bytes").held_to("value", "≤", 1_200)
    yield Figure("7 steady", "transactions per item at full drain", commits, "").held_to("value", "≤", 0.02)


def _figures(taken: list[Series]) -> Iterator[Figure]:
    prefetch, strict, two_raw, status, status_strict, one, one_strict, two, wide = taken
    yield prefetch.figure()
    yield strict.figure()
    yield two_raw.figure(prefetch)
    yield status.figure(prefetch)
    yield status_strict.figure(strict)
    yield one.figure(prefetch).held_to("ratio", "≥", 0.65)
    yield one_strict.figure(strict).held_to("ratio", "≥", 0.85)
    yield wide.figure(one).held_to("ratio", "≥", 1.0)
    yield two.figure(one).held_to("ratio", "≥", 0.9 * (two_raw.figure(prefetch).ratio or 1.0))


def _raw(loop: str, batch: int, processes: int, count: int) -> float:
    raw.on_loop(lambda conn: raw.fill(conn, loop, count))
    return raw_drain(loop, batch, processes)


def _cost(bed: Bed, queue: str, count: int) -> tuple[float, float]:
    """WAL bytes and transactions of the whole database per item, from ready to outcome."""
    items = _submit(queue, count)
    wal, commits = bed.rows(COST)[0]
    App().wake(queue)
    until("all outcomes", lambda: bed.rows(ENDED, items)[0][0] == count, timeout_s=300, pause_s=0.5)
    time.sleep(STATISTICS_S)
    wal_after, commits_after = bed.rows(COST)[0]
    return (wal_after - wal) / count, (commits_after - commits) / count


def _product(bed: Bed, queue: str, count: int) -> float:
    """From the first tenth's end to the last outcome, by the times the engine wrote."""
    items = _submit(queue, count)
    App().wake(queue)
    until("the last item's outcome", lambda: bed.rows(ENDED, items[-1:])[0][0] == 1, timeout_s=300, pause_s=0.05)
    until("all outcomes", lambda: bed.rows(ENDED, items)[0][0] == count, timeout_s=60, pause_s=0.2)
    seconds, counted = bed.rows(RATE, items, int(count * WARM))[0]
    return float(counted / seconds)


def _submit(queue: str, count: int) -> list[int]:
    """The item ids, in the order in which they become ready. Nobody is woken."""
    ids = new_task_ids(count)
    return list(Database.default().run(tasks.submit_many(ids, "noop", "noop", [raw.PAYLOAD] * count, queue=queue)))
