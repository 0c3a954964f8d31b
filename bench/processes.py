"""The processes of a run, as a user starts them; each is ended by its own handle."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bed import Bed

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
ALIVE = "SELECT count(*) FROM agentos.workers WHERE label = %s AND state = 'alive'"
READY = "SELECT count(*) FROM agentos.workers WHERE pid = %s AND state = 'alive'"


def start(*argv: str, **options: Any) -> subprocess.Popen[str]:
    """A command of this installation, in the folder where `bench` can be imported; it says nothing but warnings."""
    command = str(Path(sys.executable).with_name(argv[0]))
    env = {**os.environ, "AGENTOS_LOG_LEVEL": "error"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has its modules compiled: pip sees to that
    return subprocess.Popen([command, *argv[1:]], cwd=ROOT, env=env, text=True, **options)


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to stop, wait, insist."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(what: str, condition: Any, timeout_s: float = PATIENCE_S, pause_s: float = 0.02) -> None:
    """Wait for it. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(pause_s)


@contextmanager
def workers(
    bed: Bed, queue: str, *options: str, count: int = 1, label: str | None = None
) -> Iterator[list[subprocess.Popen[str]]]:
    """So many worker processes that serve `queue`, ready."""
    started = [_worker(queue, label, options) for _ in range(count)]
    try:
        until(f"workers of {queue}", lambda: bed.rows(ALIVE, label or queue)[0][0] == count)
        yield started
    finally:
        for process in started:
            end(process)


def more(bed: Bed, queue: str, *options: str) -> subprocess.Popen[str]:
    """One more of `workers`, ready; the caller puts it among them."""
    process = _worker(queue, None, options)
    until(f"another worker of {queue}", lambda: bool(bed.rows(READY, process.pid)[0][0]))
    return process


def _worker(queue: str, label: str | None, options: Sequence[str]) -> subprocess.Popen[str]:
    return start("agentos-worker", "--app", "bench.app:app", "--queue", queue, "--label", label or queue, *options)


def raw_drain(loop: str, batch: int, processes: int) -> float:
    """Items per second of so many raw loops at once; what they drain is there already."""
    argv = ("python", "-m", "bench.raw", loop, str(batch))
    started = [start(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        return _told_to_go(started)
    finally:
        for process in started:
            end(process)


def _told_to_go(started: Sequence[subprocess.Popen[str]]) -> float:
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n", "a raw loop did not start"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.stdout.readline()) for process in started if process.stdout]
    return float(sum(each["done"] for each in told) / (max(e["ended"] for e in told) - min(e["began"] for e in told)))
