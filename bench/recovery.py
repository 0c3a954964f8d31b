"""Bar 10: kill -9 to running again, at the default settings, with a coordinator. Of many workers with an item each,
killed one after the other, with one that is left: the longest. And of a pool of two that is made whole again after each
kill: the database sees the sessions go, and nobody starts but who has to.
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
from bench.processes import end, more, start, until, workers

ISSUE = "10 recovery"
TTL_S, SWEEP_S, SLACK_S = 15.0, 1.0, 1.5
FAST_S = 2.0
VICTIMS = 20
SPREAD_S = 6.0
"""The kills are spread over more than a beat and a sweep: each meets another moment of both."""


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    coordinator = start("agentos-coordinator")
    try:
        with tempfile.TemporaryDirectory() as folder:
            together = _many_at_once(bed, Path(folder) / "many", bed.size(VICTIMS))
            apart = _one_at_a_time(bed, Path(folder) / "one", bed.size(VICTIMS))
    finally:
        end(coordinator)
    yield _figure(
        ISSUE, f"{len(together)} workers killed in {2 * SPREAD_S:g} s, longest", max(together), together
    ).held_to("value", "≤", TTL_S + SWEEP_S + SLACK_S)
    name = f"one of two workers killed, p95 of {len(apart)}"
    yield _figure("10 fast path", name, percentile(apart, 95), apart).held_to("value", "≤", FAST_S)


def _figure(issue: str, name: str, value: float, taken: Sequence[float]) -> Figure:
    return Figure(issue, name, value, "s", min(taken), max(taken))


def _many_at_once(bed: Bed, log: Path, victims: int) -> list[float]:
    """Seconds from each kill to the first line of the second attempt."""
    log.touch()
    with workers(bed, "killed", "--concurrency", "1", count=victims) as them:
        app.submit_many("hold", [{"log": str(log)}] * victims, queue="killed")
        until("every worker to hold an item", lambda: len(_lines(log)) == victims)
        with workers(bed, "killed", "--concurrency", str(victims), label="survivor"):
            killed = _kill(them, log)
            until("every item to run again", lambda: len(_lines(log)) == 2 * victims, timeout_s=120)
        again = {task_id: at for task_id, attempt, at, _ in _lines(log) if attempt > 1}
    return [(again[task_id] - at) / 1e9 for task_id, at in killed.items()]


def _one_at_a_time(bed: Bed, log: Path, times: int) -> list[float]:
    """The same, when the worker that is killed is the only one that is missing."""
    log.touch()
    taken = []
    with workers(bed, "pool", count=2) as them:
        for _ in range(times):
            done = len(_lines(log))
            app.submit("hold", {"log": str(log)}, queue="pool")
            until("a worker to hold the item", lambda done=done: len(_lines(log)) == done + 1)
            time.sleep(random.uniform(0, SPREAD_S / 2))
            holder = next(process for process in them if process.pid == _lines(log)[-1][3])
            killed = time.monotonic_ns()
            holder.kill()
            until("the item to run again", lambda done=done: len(_lines(log)) == done + 2)
            taken.append((_lines(log)[-1][2] - killed) / 1e9)
            them[them.index(holder)] = more(bed, "pool")
    return taken


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
