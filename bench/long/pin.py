"""Bar 6: a vacuum horizon that somebody pins, beside a database of the same server where nobody does.

Three databases take turns of a few seconds, so that all meet the same noise: nothing pinned, a REPEATABLE READ reader,
a writer that is idle in its transaction. A horizon of a user's tables is its database's own. Afterwards the pins end,
VACUUM runs, and the turns go on for a while.
"""

import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import psycopg

from agentos.store.connect import connect
from bench.bed import Bed, migrated_database
from bench.long.claimer import Claimer, Took
from bench.measure import Bar, Figure, percentile

ISSUE = "6 pin"
SLICE_S = 2.0
AFTERWARDS = 5
SIZE = """
    SELECT (pg_total_relation_size('agentos.lease_ready')
            + pg_total_relation_size('agentos.lease_held'))::float8 / 1048576
"""
CONTROL, READER, WRITER = "not pinned", "a reader pins", "a writer pins"


@dataclass(slots=True)
class Line:
    """What one database did over time."""

    claimer: Claimer
    taken: list[tuple[float, Took]] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    sweeps: list[float] = field(default_factory=list)

    def turn(self, minutes: float, slice_s: float) -> None:
        """One turn."""
        self.taken.append((minutes, self.claimer.work(slice_s)))
        self.beats.append(self.claimer.beat())
        self.sweeps.append(self.claimer.sweep())

    def done(self) -> int:
        """Items so far."""
        return sum(took.items for _, took in self.taken)


@dataclass(frozen=True, slots=True)
class Course:
    """The whole run, for the figures and the plots."""

    lines: Mapping[str, Line]
    pinned_turns: int
    sizes: Mapping[str, tuple[float, float]]

    def rates(self, name: str) -> list[tuple[float, float]]:
        """(minute, items per second)."""
        return [(minute, took.rate) for minute, took in self.lines[name].taken]

    def p99s(self, name: str) -> list[tuple[float, float]]:
        """(minute, milliseconds of a claim)."""
        return [(minute, percentile(took.claims, 99)) for minute, took in self.lines[name].taken]


def observe(bed: Bed, minutes: float, stop: threading.Event) -> Course:
    """Pin for so many minutes, or until told to stop."""
    slice_s = min(SLICE_S, minutes * 60 / 12)
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(migrated_database(bed)) for name in (CONTROL, READER, WRITER)}
        lines = {name: Line(Claimer(dsn)) for name, dsn in dsns.items()}
        for line in lines.values():
            line.claimer.work(slice_s)
        pins = [_reader(dsns[READER]), _writer(dsns[WRITER])]
        began = time.monotonic()
        while not lines[CONTROL].taken or (not stop.is_set() and time.monotonic() - began < minutes * 60):
            _turns(lines, (time.monotonic() - began) / 60, slice_s)
        turns = len(lines[CONTROL].taken)
        for pin in pins:
            pin.close()
        sizes = {name: (_size(line), 0.0) for name, line in lines.items()}
        for line in lines.values():
            line.claimer.conn.execute("VACUUM agentos.lease_ready, agentos.lease_held")
        for _ in range(AFTERWARDS):
            _turns(lines, (time.monotonic() - began) / 60, slice_s)
        sizes = {name: (sizes[name][0], _size(line)) for name, line in lines.items()}
        for line in lines.values():
            line.claimer.close()
    return Course(lines, turns, sizes)


def _turns(lines: Mapping[str, Line], minutes: float, slice_s: float) -> None:
    for line in lines.values():
        line.turn(minutes, slice_s)
    said = ", ".join(
        f"{name} {line.taken[-1][1].rate:,.0f}/s (p99 {percentile(line.taken[-1][1].claims, 99):.1f} ms)"
        for name, line in lines.items()
    )
    print(f"pin, minute {minutes:.1f}: {said}", file=sys.stderr, flush=True)


def _reader(dsn: str) -> psycopg.Connection[object]:
    conn = connect(dsn)
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    conn.execute("SELECT count(*) FROM agentos.lanes")
    return conn


def _writer(dsn: str) -> psycopg.Connection[object]:
    conn = connect(dsn)
    conn.execute("BEGIN")
    conn.execute("CREATE TABLE public.forgotten (n integer)")
    return conn


def _size(line: Line) -> float:
    row = line.claimer.conn.execute(SIZE).fetchone()
    return float(row[0]) if row else 0.0


def figures(course: Course) -> Iterator[Figure]:
    """The last quarter of the pinned time, and the turns after it."""
    last = max(1, course.pinned_turns // 4)
    window = slice(course.pinned_turns - last, course.pinned_turns)
    control = course.lines[CONTROL]
    for name in (READER, WRITER):
        line = course.lines[name]
        yield _ratio(course, name, f"{name}, rate in the last {last} turns", window, 0.8)
        claims = sorted(ms for _, took in line.taken[window] for ms in took.claims)
        beside = percentile([ms for _, took in control.taken[window] for ms in took.claims], 99)
        p99 = percentile(claims, 99)
        yield Figure(ISSUE, f"{name}, claim p99", p99, "ms", claims[0], claims[-1], CONTROL, p99 / beside,
                     Bar("value", "≤", 10.0))  # fmt: skip
        for what, taken, other in (("beat", line.beats, control.beats), ("sweep", line.sweeps, control.sweeps)):
            found = statistics.median(taken[window])
            yield Figure(ISSUE, f"{name}, a {what}", found, "ms", min(taken[window]), max(taken[window]), CONTROL,
                         found / statistics.median(other[window]))  # fmt: skip
        yield Figure(ISSUE, f"{name}, items done under the pin", sum(t.items for _, t in line.taken[: window.stop]), "")
        yield _ratio(course, name, f"{name}, rate after it ended", slice(course.pinned_turns, None), 0.8)
        at_end, after = course.sizes[name]
        yield Figure(ISSUE, f"{name}, lease tables when it ended", at_end, "MiB")
        yield Figure(ISSUE, f"{name}, lease tables after the turns that followed", after, "MiB", None, None,
                     "when it ended", after / at_end, Bar("ratio", "≤", 1.05))  # fmt: skip


def _ratio(course: Course, name: str, text: str, window: slice, bar: float) -> Figure:
    mine = [took.rate for _, took in course.lines[name].taken[window]]
    its = [took.rate for _, took in course.lines[CONTROL].taken[window]]
    ratio = statistics.median(a / b for a, b in zip(mine, its, strict=True))
    return Figure(ISSUE, text, statistics.median(mine), "items/s", min(mine), max(mine), CONTROL, ratio,
                  Bar("ratio", "≥", bar))  # fmt: skip
