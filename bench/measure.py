"""Timing a callable, and a table of figures beside their baselines."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Milliseconds of one operation. `bar_ms`: what its p50 is held to, if it is."""

    name: str
    p50_ms: float
    p99_ms: float
    baseline: str | None = None
    bar_ms: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the bar holds; True without one."""
        return self.bar_ms is None or self.p50_ms < self.bar_ms


def timed(
    name: str, operation: Callable[[], object], *, times: int, baseline: str | None = None, bar_ms: float | None = None
) -> Figure:
    """Run `operation` so many times after a tenth as many to warm up."""
    for _ in range(max(1, times // 10)):
        operation()
    taken = [_once(operation) for _ in range(times)]
    return Figure(name, statistics.median(taken), statistics.quantiles(taken, n=100)[98], baseline, bar_ms)


def _once(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return (time.perf_counter() - started) * 1000


def interleaved(rounds: int, operations: Sequence[Callable[[], float]]) -> list[float]:
    """The median of each operation's own figure over `rounds` turns, so that all meet the same noise."""
    taken: list[list[float]] = [[] for _ in operations]
    for _ in range(rounds):
        for figures, operation in zip(taken, operations, strict=True):
            figures.append(operation())
    return [statistics.median(figures) for figures in taken]
