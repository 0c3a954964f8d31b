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
from bench.bed import Bed, migrated_database
from bench.long.claimer import Claimer, Took
from bench.measure import Bar, Figure, Series, in_turns, percentile

ISSUE = "5 backlog"
DEPTHS = (10_000, 1_000_000, 10_000_000)
QUICK = (1_000, 10_000)
TURNS, TURN_S = 20, 0.5
"""Many short turns: what else the machine does meets both, or the median of neither."""
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
    count = bed.size(1_000_000)
    with migrated_database(bed) as empty, migrated_database(bed) as full:
        alone, beside = Claimer(empty), Claimer(full)
        beside.conn.execute(SCHEDULE, (beside.lanes[0], count))
        beside.conn.execute("VACUUM ANALYZE agentos.scheduled")
        yield from _compared(bed, "drain with none scheduled", alone, f"drain with {count:,} scheduled", beside, 0.9)
        alone.close()
        beside.close()


def _lanes(bed: Bed) -> Iterator[Figure]:
    few, many = Claimer(bed.dsn, ["lanes-0"]), Claimer(bed.dsn, [f"lanes-{n}" for n in range(1000)])
    yield from _compared(bed, "drain by a worker of one lane", few, "drain by a worker of 1,000 lanes", many, 0.8)
    few.close()
    many.close()


def _compared(bed: Bed, plain: str, without: Claimer, name: str, burdened: Claimer, bar: float) -> Iterator[Figure]:
    """Both in turns, and the burdened one's ratio to the other, held to `bar`."""
    without_it, with_it = in_turns(ISSUE, "items/s", bed.size(TURNS), {
        plain: lambda: without.work(TURN_S).rate, name: lambda: burdened.work(TURN_S).rate,
    }).values()  # fmt: skip
    yield without_it.figure()
    yield with_it.figure(without_it).held_to("ratio", "≥", bar)
