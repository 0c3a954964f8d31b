"""Those who are measured: each in a database of its own, asked for the same five things."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from bench.app import app
from bench.bed import Bed
from bench.peers import protocol
from bench.peers.install import Peer
from bench.pickup import RESULTS
from bench.processes import ROOT, until, workers

PATIENCE_S = 120
LEFT = """
    SELECT 1 FROM agentos.lanes l WHERE l.queue = 'peers'
       AND (EXISTS (SELECT FROM agentos.lease_ready r WHERE r.lane = l.lane) OR EXISTS (SELECT FROM agentos.lease_held))
"""


class Contender(Protocol):
    """Rates per second, times in milliseconds."""

    name: str
    items: int

    def drain(self, processes: int, count: int) -> float: ...
    def pickup(self, count: int) -> list[float]: ...
    def submit(self, clients: int, seconds: float) -> float: ...
    def bulk(self, count: int) -> float: ...
    def steps(self, tasks: int, count: int) -> list[list[int]]: ...


def common_rate(times: Sequence[Sequence[int]]) -> float:
    """Items per second of processes that started and ended at different moments: while all of them were at work.

    `times`: of each process, in nanoseconds. Its first tenth is not counted.
    """
    working = [sorted(each)[len(each) // 10 :] for each in times if len(each) > 10]
    if not working:
        raise ValueError("no process did more than ten items")
    since, till = max(each[0] for each in working), min(each[-1] for each in working)
    if since >= till:
        raise ValueError("the processes did not work at the same time")
    return sum(since < at <= till for each in working for at in each) * 1e9 / (till - since)


class Foreign:
    """A peer in one of its configurations."""

    def __init__(self, peer: Peer, configuration: str, dsn: str) -> None:
        self.name, self.items = f"{peer.name}, {configuration}", peer.items
        self._peer, self._configuration, self._dsn = peer, configuration, dsn
        self._installed = False

    def drain(self, processes: int, count: int) -> float:
        self._install()
        self._ask("fill", count)
        started = [self._start("worker", self._configuration, "idle") for _ in range(processes)]
        return common_rate([_answer(process) for process in started])

    def pickup(self, count: int) -> list[float]:
        self._install()
        worker = self._start("worker", self._configuration, "told")
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", f"{self.name} did not start"
            time.sleep(1)  # it has said so before its listener is there
            returned: list[int] = self._ask("trickle", count)
            time.sleep(0.5)
        finally:
            began = sorted(_answer(worker))
        return [(at - since) / 1e6 for since, at in zip(returned, began, strict=True)]

    def submit(self, clients: int, seconds: float) -> float:
        self._install()
        return float(self._ask("submit", clients, seconds))

    def bulk(self, count: int) -> float:
        return count / float(self._ask("fill", count))

    def steps(self, tasks: int, count: int) -> list[list[int]]:
        self._install()
        return list(self._ask("steps", self._configuration, tasks, count))

    def _install(self) -> None:
        if not self._installed:
            self._ask("install")
            self._installed = True

    def _ask(self, *arguments: object):  # type: ignore[no-untyped-def]
        return _answer(self._start(*arguments))

    def _start(self, *arguments: object) -> subprocess.Popen[str]:
        command, *rest = map(str, arguments)
        return subprocess.Popen(
            [*self._peer.command(), command, self._dsn, *rest], cwd=ROOT, env=self._peer.variables(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def _answer(process: subprocess.Popen[str]):  # type: ignore[no-untyped-def]
    """Its last line. Raises RuntimeError: with the last line of its complaints."""
    try:
        said, complained = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        raise RuntimeError(f"{process.args!r} did not end within {PATIENCE_S} s") from exc
    if process.returncode:
        raise RuntimeError((complained.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(said.splitlines()[-1])


class Ours:
    """agentos as it comes, at --concurrency 8."""

    name, items = "agentos", 30_000

    def __init__(self, bed: Bed) -> None:
        self._bed = bed

    def drain(self, processes: int, count: int) -> float:
        app.submit_many("noop", [protocol.PAYLOAD] * count, queue="peers")
        with self._workers(processes):
            until("the drain", lambda: not self._bed.rows(LEFT), PATIENCE_S, 0.2)
        times = self._bed.rows(
            "SELECT array_agg((extract(epoch FROM finished_at) * 1e9)::bigint) FROM agentos.outcomes"
            " WHERE finished_at > clock_timestamp() - interval '10 min' AND item_id IN (SELECT item_id FROM"
            " agentos.work_items ORDER BY item_id DESC LIMIT %s) GROUP BY worker_id", count,
        )  # fmt: skip
        return common_rate([row[0] for row in times])

    def pickup(self, count: int) -> list[float]:
        with self._workers(1):
            returned = {}
            for n in range(count + 10):
                task_id = app.submit("began", queue="peers").task_id
                if n >= 10:
                    returned[task_id] = time.monotonic_ns()
                time.sleep(protocol.PAUSE_S)
            until("all results", lambda: len(self._bed.rows(RESULTS, list(returned))) == count, pause_s=0.2)
        return [(began - returned[task_id]) / 1e6 for task_id, began in self._bed.rows(RESULTS, list(returned))]

    def submit(self, clients: int, seconds: float) -> float:
        return float(self._ask("submit", clients, seconds))

    def bulk(self, count: int) -> float:
        return count / float(self._ask("fill", count))

    def _ask(self, command: str, *arguments: object):  # type: ignore[no-untyped-def]
        argv = [sys.executable, "-m", "bench.peers.agentos.driver", command, self._bed.dsn, *map(str, arguments)]
        return _answer(subprocess.Popen(argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def steps(self, tasks: int, count: int) -> list[list[int]]:
        with self._workers(1):
            handles = app.submit_many("steps", [{"count": count, "size": 1012}] * tasks, queue="peers")
            return [handle.result(60) for handle in handles]

    @contextmanager
    def _workers(self, count: int) -> Iterator[None]:
        with workers(self._bed, "peers", "--concurrency", "8", count=count):
            yield
