"""Bar 5: what waits costs a claim nothing: ten million ready rows, a million scheduled ones, a thousand lanes.

What waits is filled in as lease rows alone, which is all that a claim can meet; the items that are drained are whole.
Depths are taken in turns, with the raw loop beside the product at each.
"""

import statistics
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.store.connect import OnConnection
from bench import raw
from bench.bed import Bed
from bench.long.claimer import Claimer, Took
from bench.measure import Bar, Figure, Series, percentile

ISSUE = "5 backlog"
DEPTHS = (10_000, 1_000_000, 10_000_000)
QUICK = (1_000, 10_000)
AHEAD = 10**18
"""Ranks of what waits: behind everything that is drained."""
FILL = """
    INSERT INTO {}.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT %s, %s + n, n, -n, 0, 0, 0 FROM generate_series(%s::bigint, %s::bigint) n
"""
SCHEDULE = """
    INSERT INTO agentos.scheduled (item_id, run_at, lane, rank, attempt, failures, crashes)
    SELECT -n, clock_timestamp() + interval '1 day', %s, n, 0, 0, 0 FROM generate_series(1, %s) n
"""


@dataclass(slots=True)
class Depth:
    """The drains at one depth. `rows`: how many wait."""

    rows: int
    product: Series
    raw: Series
    claims: list[float] = field(default_factory=list)


def observe(bed: Bed, stop: threading.Event, rows: int | None = None) -> list[Depth]:
    """Drain at each depth, the shallowest first; told to stop, those so far. `rows`: the deepest, instead of DEPTHS."""
    claimer, found, before = Claimer(bed.dsn), list[Depth](), 0
    count = bed.size(6_000)
    _both(bed, claimer, count)
    for depth in (DEPTHS[0], rows) if rows else QUICK if bed.quick else DEPTHS:
        if stop.is_set():
            break
        print(f"backlog: filling up to {depth:,} ready rows", file=sys.stderr, flush=True)
        for name, lane in (("agentos", claimer.lanes[0]), ("raw", 1)):
            claimer.conn.execute(FILL.format(name).encode(), (lane, AHEAD, before + 1, depth))
            claimer.conn.execute(f"VACUUM ANALYZE {name}.lease_ready".encode())
        before = depth
        claims: list[float] = []
        product, plain = [], []
        for _ in range(bed.rounds):
            took, rate = _both(bed, claimer, count)
            claims += took.claims
            product.append(took.rate)
            plain.append(rate)
        print(f"backlog: {depth:,}: {statistics.median(product):,.0f} items/s", file=sys.stderr, flush=True)
        found.append(Depth(
            depth, Series(ISSUE, "agentos", "items/s", tuple(product)),
            Series(ISSUE, "raw loop", "items/s", tuple(plain)), claims,
        ))  # fmt: skip
    claimer.close()
    return found


def _both(bed: Bed, claimer: Claimer, count: int) -> tuple[Took, float]:
    """The product's drain of so many, and the raw loop's rate."""
    session = OnConnection(claimer.conn)
    session.run(tasks.submit_many(new_task_ids(count), "noop", "noop", [raw.PAYLOAD] * count, queue="long"))
    took = claimer.drain(count)
    return took, raw.on_loop(lambda conn: _raw(conn, count))


async def _raw(conn, count: int) -> float:  # type: ignore[no-untyped-def]
    await raw.fill(conn, "lease", count)
    return await raw.drain_rate(conn, count, batch=100)


def figures(bed: Bed, depths: list[Depth]) -> Iterator[Figure]:
    """Each depth beside the shallowest, then what is scheduled and many lanes."""
    if not depths:
        return
    first = depths[0]
    for depth in depths:
        its, own = _ratio(depth.raw, first.raw), _ratio(depth.product, first.product)
        yield _named(depth.raw.figure(), f"raw loop, {depth.rows:,} waiting", its, None)
        bar = None if depth is first else Bar("ratio", "≥", max(0.8, 0.9 * its))
        yield _named(depth.product.figure(), f"agentos, {depth.rows:,} waiting", own, bar)
        p99, beside = percentile(depth.claims, 99), percentile(first.claims, 99)
        yield Figure(ISSUE, f"claim p99, {depth.rows:,} waiting", p99, "ms", min(depth.claims), max(depth.claims),
                     f"{first.rows:,}", p99 / beside, None if depth is first else Bar("ratio", "≤", 1.25))  # fmt: skip
    yield from _beside_what_is_scheduled(bed)
    yield from _lanes(bed)


def _named(figure: Figure, name: str, ratio: float, bar: Bar | None) -> Figure:
    return Figure(ISSUE, name, figure.value, figure.unit, figure.low, figure.high, "the shallowest", ratio, bar)


def _ratio(series: Series, beside: Series) -> float:
    return statistics.median(series.turns) / statistics.median(beside.turns)


def _beside_what_is_scheduled(bed: Bed) -> Iterator[Figure]:
    claimer, count = Claimer(bed.dsn, ["scheduled"]), bed.size(1_000_000)
    before = _rates(claimer, bed)
    claimer.conn.execute(SCHEDULE, (claimer.lanes[0], count))
    after = _rates(claimer, bed)
    yield _compared(f"drain with {count:,} scheduled", after, before, 0.9)
    claimer.close()


def _lanes(bed: Bed) -> Iterator[Figure]:
    few, many = Claimer(bed.dsn, ["lanes-0"]), Claimer(bed.dsn, [f"lanes-{n}" for n in range(1000)])
    yield _compared("drain by a worker of 1,000 lanes", _rates(many, bed), _rates(few, bed), 0.8)
    for claimer in (few, many):
        claimer.close()


def _rates(claimer: Claimer, bed: Bed) -> list[float]:
    return [claimer.work(0.5 if bed.quick else 2.0).rate for _ in range(bed.rounds)]


def _compared(name: str, mine: list[float], beside: list[float], bar: float) -> Figure:
    ratio = statistics.median(mine) / statistics.median(beside)
    return Figure(ISSUE, name, statistics.median(mine), "items/s", min(mine), max(mine), "without", ratio,
                  Bar("ratio", "≥", bar))  # fmt: skip
