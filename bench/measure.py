"""Figures, their bars, and how they are taken: in turns, so that all meet the same noise, and as medians."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held to: its value, or its ratio to a baseline of the same run."""

    what: Literal["value", "ratio"]
    sign: Literal["≥", "≤"]
    limit: float

    def holds(self, found: float) -> bool:
        """Whether it does."""
        return found >= self.limit if self.sign == "≥" else found <= self.limit

    def __str__(self) -> str:
        return f"{'x ' if self.what == 'ratio' else ''}{self.sign} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `issue`: which bar of issue 4 it belongs to; `low`, `high`: the worst and best turn."""

    issue: str
    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    baseline: str | None = None
    ratio: float | None = None
    bar: Bar | None = None

    @property
    def holds(self) -> bool | None:
        """Whether its bar holds; None: it has none."""
        if self.bar is None:
            return None
        found = self.value if self.bar.what == "value" else self.ratio
        return found is not None and self.bar.holds(found)

    def held_to(self, what: Literal["value", "ratio"], sign: Literal["≥", "≤"], limit: float) -> "Figure":
        """The same with a bar."""
        return replace(self, bar=Bar(what, sign, limit))


@dataclass(frozen=True, slots=True)
class Series:
    """What one thing measured over the turns."""

    issue: str
    name: str
    unit: str
    turns: tuple[float, ...]

    def figure(self, beside: "Series | None" = None) -> Figure:
        """Its median; `beside` a baseline the ratio too: the median of the turns' own ratios, which met the same
        noise.
        """
        ratio = (
            statistics.median(mine / its for mine, its in zip(self.turns, beside.turns, strict=True))
            if beside
            else None
        )
        return Figure(
            self.issue, self.name, statistics.median(self.turns), self.unit, min(self.turns), max(self.turns),
            beside.name if beside else None, ratio,
        )  # fmt: skip


def in_turns(issue: str, unit: str, rounds: int, each: Mapping[str, Callable[[], float]]) -> dict[str, Series]:
    """Call each of `each` once per round, in order; one round before them is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in each}
    for turn in range(rounds + 1):
        for name, operation in each.items():
            found = operation()
            if turn:
                taken[name].append(found)
    return {name: Series(issue, name, unit, tuple(found)) for name, found in taken.items()}


def milliseconds(operation: Callable[[], object], times: int) -> float:
    """The median of so many calls, one after the other."""
    return statistics.median(_once(operation) for _ in range(times))


def per_second(operation: Callable[[], object], times: int) -> float:
    """Calls per second, by the median of their times: the rate without the stalls that others cause."""
    return 1000 / milliseconds(operation, times)


def _once(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return (time.perf_counter() - started) * 1000


def percentile(values: Sequence[float], percent: int) -> float:
    """By linear interpolation; of one value, that value."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
