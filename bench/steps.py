"""Bar 4: what a durable step costs: a checkpoint, a ledgered call, alone and eight tasks at once."""

import statistics
from collections.abc import Iterator
from itertools import pairwise

from bench.app import app
from bench.bed import Bed
from bench.clients import Clients, insert_bare
from bench.measure import Bar, Figure, Series, in_turns
from bench.processes import workers

ISSUE = "4 steps"
STEPS = 20
SMALL, LARGE = 1024 - 12, 64 * 1024 - 12
"""Bytes of the snapshot's only value: 1 KiB and 64 KiB with what is around it."""
TOGETHER = 8


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    with workers(bed, "steps", "--concurrency", "8"), Clients(1) as rows:
        taken = in_turns(ISSUE, "ms", bed.size(12), {
            "bare INSERT, committed": lambda: rows.median_ms(insert_bare, STEPS),
            "checkpoint alone, 1 KiB": lambda: _median_ms(_steps(SMALL)),
            "checkpoint alone, 64 KiB": lambda: _median_ms(_steps(LARGE)),
            "ledgered call alone": lambda: _median_ms(_steps(0, ledger=True)),
            "task of 20 checkpoints, 1 KiB": lambda: _total_ms(_steps(SMALL)),
        })  # fmt: skip
        bare, small, large, ledger, task = taken.values()
        together = in_turns(ISSUE, "steps/s", bed.rounds, {
            "8 tasks at once, 1 KiB": lambda: _rate(SMALL, bed.size(400)),
            "8 tasks at once, 64 KiB": lambda: _rate(LARGE, bed.size(60)),
            "8 tasks at once, ledgered calls": lambda: _rate(0, bed.size(200), ledger=True),
        })  # fmt: skip
    yield bare.figure()
    yield small.figure(bare).held_to("ratio", "≤", 1.15)
    yield large.figure(bare)
    yield ledger.figure(bare).held_to("ratio", "≤", 1.15)
    yield task.figure().held_to("value", "≤", 20.0)
    yield from _held(together)


def _held(together: dict[str, Series]) -> Iterator[Figure]:
    first, *others = together.values()
    figure = first.figure()
    yield Figure(ISSUE, figure.name, figure.value, figure.unit, figure.low, figure.high, bar=Bar("value", "≥", 6_000))
    yield from (series.figure() for series in others)


def _steps(size: int, *, count: int = STEPS, ledger: bool = False) -> list[int]:
    payload = {"count": count, "size": size, "ledger": ledger}
    times: list[int] = app.submit("steps", payload, queue="steps").result(60)
    return times


def _median_ms(times: list[int]) -> float:
    return statistics.median((after - before) / 1e6 for before, after in pairwise(times))


def _total_ms(times: list[int]) -> float:
    return (times[-1] - times[0]) / 1e6


def _rate(size: int, count: int, *, ledger: bool = False) -> float:
    payloads = [{"count": count, "size": size, "ledger": ledger}] * TOGETHER
    handles = app.submit_many("steps", payloads, queue="steps")
    results = [handle.result(120) for handle in handles]
    seconds = (max(times[-1] for times in results) - min(times[0] for times in results)) / 1e9
    return float(TOGETHER * count / seconds)
