"""Bar 1: how fast workers drain no-ops, beside raw loops over the same layout and a status column."""

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
WARM = 0.1
"""The first tenth is not counted, of none of them."""
ENDED = "SELECT count(*), max(finished_at) FROM agentos.outcomes WHERE item_id = ANY (%s)"
RATE = """
    SELECT extract(epoch FROM max(finished_at) - min(finished_at))::float8, count(*)
      FROM (SELECT finished_at FROM agentos.outcomes WHERE item_id = ANY (%s) ORDER BY finished_at OFFSET %s) o
"""


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    many, few = bed.size(20_000), bed.size(3_000)
    with (
        workers(bed, "one", "--concurrency", "8"),
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
            "2 agentos-worker --concurrency 8": lambda: _product(bed, "two", many // 2),
            "agentos-worker --concurrency 1000": lambda: _product(bed, "wide", many // 2),
        })  # fmt: skip
    yield from _figures(list(taken.values()))


def _figures(taken: list[Series]) -> Iterator[Figure]:
    prefetch, strict, two_raw, status, status_strict, one, two, wide = taken
    yield prefetch.figure()
    yield strict.figure()
    yield two_raw.figure(prefetch)
    yield status.figure(prefetch)
    yield status_strict.figure(strict)
    yield one.figure(prefetch).held_to("ratio", "≥", 0.65)
    yield one.figure(strict).held_to("ratio", "≥", 0.85)
    yield wide.figure(one).held_to("ratio", "≥", 1.0)
    yield two.figure(one).held_to("ratio", "≥", 0.9 * (two_raw.figure(prefetch).ratio or 1.0))


def _raw(loop: str, batch: int, processes: int, count: int) -> float:
    raw.on_loop(lambda conn: raw.fill(conn, loop, count))
    return raw_drain(loop, batch, processes)


def _product(bed: Bed, queue: str, count: int) -> float:
    """From the first tenth's end to the last outcome, by the times the engine wrote."""
    db = Database.default()
    items = list(db.run(tasks.submit_many(new_task_ids(count), "noop", "noop", [raw.PAYLOAD] * count, queue=queue)))
    App().wake(queue)
    until("the last item's outcome", lambda: bed.rows(ENDED, items[-1:])[0][0] == 1, timeout_s=300, pause_s=0.05)
    until("all outcomes", lambda: bed.rows(ENDED, items)[0][0] == count, timeout_s=60, pause_s=0.2)
    seconds, counted = bed.rows(RATE, items, int(count * WARM))[0]
    return float(counted / seconds)
