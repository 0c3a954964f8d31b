"""`make bench-long`: bars 5, 6, 7 and the hour of 9. Interrupted (Ctrl-C), it prints what it has so far.

Unless `--minutes` says otherwise each subject takes the time its bar names; `--quick` is a look.
"""

import argparse
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import plot, report
from bench.bed import Bed, fresh_bed
from bench.long import backlog, idle, pin, steady
from bench.measure import Figure

Plots = dict[str, str]
Subject = Callable[[Bed, float, threading.Event, Plots], Iterator[Figure]]


def _pin(bed: Bed, minutes: float, stop: threading.Event, plots: Plots) -> Iterator[Figure]:
    course = pin.observe(bed, minutes, stop)
    plots["pin-rate"] = plot.lines(
        "Rate while the vacuum horizon is pinned", "minutes", "items/s", {n: course.rates(n) for n in course.lines}
    )
    plots["pin-claims"] = plot.lines(
        "Claims while the vacuum horizon is pinned", "minutes", "p99, ms", {n: course.p99s(n) for n in course.lines}
    )
    yield from pin.figures(course)


def _backlog(
    bed: Bed, _minutes: float, stop: threading.Event, plots: Plots, rows: int | None = None
) -> Iterator[Figure]:
    depths = backlog.observe(bed, stop, rows)
    plots["backlog"] = plot.lines("Drain over backlog", "ready rows waiting (millions)", "items/s", {
        "agentos": [(d.rows / 1e6, d.product.figure().value) for d in depths],
        "raw loop": [(d.rows / 1e6, d.raw.figure().value) for d in depths],
    })  # fmt: skip
    yield from backlog.figures(bed, depths)


def _steady(bed: Bed, minutes: float, stop: threading.Event, plots: Plots) -> Iterator[Figure]:
    samples = steady.observe(bed, minutes, stop)
    plots["steady"] = plot.lines("Lease tables at half load", "minutes", "MiB and 1,000 dead rows", {
        "lease tables, MiB": [(s.minute, s.mib) for s in samples],
        "dead rows, thousands": [(s.minute, s.dead / 1000) for s in samples],
    })  # fmt: skip
    yield from steady.figures(samples)


def _idle(bed: Bed, minutes: float, stop: threading.Event, plots: Plots) -> Iterator[Figure]:
    samples = idle.observe(bed, minutes, stop)
    plots["idle"] = plot.lines("Memory of an idle worker", "minutes", "MiB", {"resident": samples})
    yield from idle.figures(samples)


SUBJECTS: dict[str, tuple[Subject, float, float]] = {
    "backlog": (_backlog, 0, 0), "pin": (_pin, 30, 0.2), "steady": (_steady, 20, 0.2), "idle": (_idle, 60, 0.1),
}  # fmt: skip
"""Each with its minutes, and those of a quick run."""


def main() -> None:
    """Run what was asked for, or all."""
    asked = _options()
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    figures: list[Figure] = []
    plots: Plots = {}
    about: dict[str, str] = {}
    subjects: dict[str, tuple[Subject, float, float]] = {
        **SUBJECTS, "backlog": (functools.partial(_backlog, rows=asked.rows), 0, 0),
    }  # fmt: skip
    for name in asked.only or subjects:
        if stop.is_set():
            break
        subject, full, quick = subjects[name]
        with fresh_bed(quick=asked.quick) as bed:
            about = about or bed.about()
            figures += subject(bed, asked.minutes or (quick if asked.quick else full), stop, plots)
    report.show(figures, about)
    if asked.json:
        report.write(Path(asked.json), figures, about)
    if asked.plots:
        plot.write(plots, Path(asked.plots))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.long", description=__doc__)
    parser.add_argument("--only", action="append", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--minutes", type=float, help="instead of what each bar names")
    parser.add_argument("--rows", type=int, help="the deepest backlog (default 10,000,000)")
    parser.add_argument("--quick", action="store_true", help="seconds and fewer rows: a look, not a measurement")
    parser.add_argument("--json", metavar="FILE", help="also write JSON to FILE")
    parser.add_argument("--plots", metavar="FOLDER", help="also draw SVG files there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
