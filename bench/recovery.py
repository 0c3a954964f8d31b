"""Bar 10: kill -9 to running again, at the default settings: many workers with an item each, killed one after the
other, one worker that is left, and a coordinator.
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.app import app
from bench.bed import Bed
from bench.measure import Figure, percentile
from bench.processes import end, start, until, workers

ISSUE = "10 recovery"
TTL_S, SWEEP_S, SLACK_S = 15.0, 1.0, 1.5
FAST_S = 2.0
VICTIMS = 20
SPREAD_S = 6.0
"""The kills are spread over more than a beat and a sweep: each meets another moment of both."""


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    taken = _recoveries(bed, bed.size(VICTIMS))
    low, high, count = min(taken), max(taken), len(taken)
    yield Figure(ISSUE, f"kill -9 to running again, longest of {count}", high, "s", low, high).held_to(
        "value", "≤", TTL_S + SWEEP_S + SLACK_S
    )
    yield Figure("10 fast path", "the same, p95", percentile(taken, 95), "s", low, high).held_to("value", "≤", FAST_S)


def _recoveries(bed: Bed, victims: int) -> list[float]:
    """Seconds from each kill to the first line of the second attempt."""
    coordinator = start("agentos-coordinator")
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            workers(bed, "killed", "--concurrency", "1", count=victims) as them,
        ):
            log = Path(folder) / "log"
            log.touch()
            app.submit_many("hold", [{"log": str(log)}] * victims, queue="killed")
            until("every worker to hold an item", lambda: len(_lines(log)) == victims)
            with workers(bed, "killed", "--concurrency", str(victims), label="survivor"):
                killed = _kill(them, log)
                until("every item to run again", lambda: len(_lines(log)) == 2 * victims, timeout_s=120)
            again = {task_id: at for task_id, attempt, at, _ in _lines(log) if attempt > 1}
    finally:
        end(coordinator)
    return [(again[task_id] - at) / 1e9 for task_id, at in killed.items()]


def _kill(them: Sequence[subprocess.Popen[str]], log: Path) -> dict[str, int]:
    """Kill each at a moment of its own; when, by the task it held."""
    task_of = {pid: task_id for task_id, _, _, pid in _lines(log)}
    killed = {}
    for process in them:
        time.sleep(random.uniform(0, 2 * SPREAD_S / len(them)))
        process.kill()
        killed[task_of[process.pid]] = time.monotonic_ns()
    return killed


def _lines(log: Path) -> list[tuple[str, int, int, int]]:
    """Task, attempt, when, pid."""
    fields = [line.split() for line in log.read_text().splitlines()]
    return [(task_id, int(attempt), int(at), int(pid)) for task_id, attempt, at, pid in fields]
