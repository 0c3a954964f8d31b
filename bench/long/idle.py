"""The hour of bar 9: an idle worker's memory is flat."""

import statistics
import sys
import threading
import time
from collections.abc import Iterator

import psutil

from bench.bed import Bed
from bench.measure import Bar, Figure
from bench.processes import workers

ISSUE = "9 idle"
SETTLED_S = 3.0
SAMPLES = 60


def observe(bed: Bed, minutes: float, stop: threading.Event) -> list[tuple[float, float]]:
    """(minute, MiB resident) of a worker with nothing to do."""
    with workers(bed, "idle", "--concurrency", "8") as (process,):
        stop.wait(SETTLED_S)
        held, began = psutil.Process(process.pid), time.monotonic()
        samples = [(0.0, _mib(held))]
        while not stop.is_set() and time.monotonic() - began < minutes * 60:
            stop.wait(minutes * 60 / SAMPLES)
            samples.append(((time.monotonic() - began) / 60, _mib(held)))
            print(f"idle: minute {samples[-1][0]:.1f}: {samples[-1][1]:.1f} MiB", file=sys.stderr, flush=True)
    return samples


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def figures(samples: list[tuple[float, float]]) -> Iterator[Figure]:
    """Its last tenth beside its first."""
    tenth = max(1, len(samples) // 10)
    mib = [value for _, value in samples]
    began, ended = statistics.median(mib[:tenth]), statistics.median(mib[-tenth:])
    name = f"idle worker, resident after {samples[-1][0]:.1f} min"
    yield Figure(ISSUE, name, ended, "MiB", min(mib), max(mib), "at first", ended / began, Bar("ratio", "≤", 1.02))
