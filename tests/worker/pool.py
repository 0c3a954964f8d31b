"""A pool of real processes on the test's database, and the log outside of it that tells what really happened."""

import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.coordinator.daemon import PATIENCE_S, Daemon, until

from agentos.core.app import App, TaskHandle
from agentos.store.calls import coordinator, tasks, workers
from agentos.store.connect import Database, connect
from agentos.store.errors import AgentOSError
from agentos.store.run import Call

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
TTL_S = 10.0
"""So long that no worker loses its leases to a busy machine. Nobody waits for it: see `Pool.expire` and `Sweeping`."""
BEAT_S = 0.5
SHORT_TTL_S = 1.5
"""For tests of what a process does by itself when its TTL is nearly over, and for the lead of coordinators."""
APP = "tests.worker.app:app"


@dataclass(slots=True)
class Pool:
    """`worker(...)` and `coordinator(...)` start processes; nothing of them outlives the pool."""

    dsn: str
    log: Path
    db: Database
    started: list[Daemon] = field(default_factory=list)

    def worker(
        self, *args: str, app: str = APP, concurrency: int = 4, ttl: float = TTL_S, grace: float = 5.0,
        module: str = "agentos.worker", env: dict[str, str] | None = None, wait: bool = True,
    ) -> Daemon:  # fmt: skip
        """A worker process; with `wait` it serves when this returns."""
        options = ["--app", app, "--concurrency", str(concurrency), "--ttl", str(ttl), "--grace", str(grace)]
        options += ["--beat", str(min(BEAT_S, ttl / 3))] if ttl == TTL_S else []
        started = Daemon(
            module, *options, *args,
            env={"AGENTOS_DSN": self.dsn, "PYTHONPATH": PATH, "EFFECTS": str(self.log), **(env or {})},
        )  # fmt: skip
        self.started.append(started)
        if wait:
            started.until_said('"serving"')
        return started

    def expire(self, stopped: Daemon) -> None:
        """As if a process that was stopped or killed had been so for its TTL."""
        self.db.run(declare_dead([stopped.process.pid]))

    def coordinator(self, *args: str, ttl: float = SHORT_TTL_S, sweep: float = 0.1) -> Daemon:
        """A coordinator process that leads or waits to."""
        started = Daemon(
            "agentos.coordinator", "--ttl", str(ttl), "--sweep", str(sweep), *args, env={"AGENTOS_DSN": self.dsn}
        )
        self.started.append(started)
        started.until_said("coordinating")
        return started

    def submit(self, kind: str, **payload: Any) -> TaskHandle:
        """A task of one item."""
        return App(dsn=self.dsn).submit(kind, payload)

    def effects(self, kind: str | None = None) -> list[str]:
        """The lines of the log, of one kind or of all."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if kind is None or line.split(" ")[0] == kind]

    def repeated(self, kind: str) -> list[str]:
        """Lines that are in the log more than once."""
        return [line for line, n in Counter(self.effects(kind)).items() if n > 1]

    def until_effect(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Wait for a line that has `text`."""
        return until(lambda: next((e for e in self.effects() if text in e), ""), timeout_s=timeout_s, what=text)

    def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """What a query finds now."""
        with connect(self.dsn) as conn:
            return conn.execute(query.encode(), args).fetchall()

    def row(self, query: str, *args: Any) -> tuple[Any, ...]:
        """The one row that a query finds."""
        (found,) = self.rows(query, *args)
        return found

    def counters(self, handle: TaskHandle) -> tuple[int, int, int]:
        """attempt, failures, crashes of a task's only item, wherever it is."""
        return self.row(
            "SELECT attempt, failures, crashes FROM agentos.item_places p JOIN agentos.work_items w USING (item_id)"
            " WHERE w.task_id = %s", handle.task_id,
        )  # fmt: skip

    def close(self) -> None:
        """Kill what is left, children too."""
        for daemon in self.started:
            with suppress(ProcessLookupError):
                os.killpg(daemon.process.pid, signal.SIGKILL)
            daemon.close()


def is_gone(pid: int) -> bool:
    """Not there, or a zombie that its parent has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter: it went between the open and the read
        return True


def ended(handle: TaskHandle, timeout_s: float = PATIENCE_S) -> str:
    """The final status of a task."""
    return until(
        lambda: (p := handle.db.run(tasks.task_progress(handle.task_id))).ended and p.status, timeout_s=timeout_s,
        what=f"the end of {handle.task_id}",
    ) or ""  # fmt: skip


def declare_dead(pids: list[int]) -> Call[None]:
    """What a sweep makes of processes whose TTL is over."""
    return Call(
        "UPDATE agentos.workers SET state = 'dead' WHERE pid = ANY($1::integer[]) AND state IN ('alive', 'draining')"
        " RETURNING 1",
        (pids,),
        lambda _: None,
    )


ALIVE: Call[list[int]] = Call(
    "SELECT pid FROM agentos.workers WHERE state IN ('alive', 'draining')",
    (),
    lambda rows: [row["pid"] for row in rows],
)
ALL_DUE: Call[None] = Call("UPDATE agentos.scheduled SET run_at = '-infinity' RETURNING 1", (), lambda _: None)


@dataclass(slots=True)
class Sweeping:
    """What a coordinator does, from a thread of the test: cheaper than a process where none is to be killed. For who
    has died, nobody waits until his TTL is over.
    """

    db: Database
    every_s: float = 0.05
    hurry: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sweep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _sweep(self) -> None:
        while not self._stop.wait(self.every_s):
            with suppress(AgentOSError):
                if self.hurry:
                    self.db.run(ALL_DUE)
                if dead := [pid for pid in self.db.run(ALIVE) if is_gone(pid)]:
                    self.db.run(declare_dead(dead))
                queues = set(self.db.run(workers.promote()))
                if taken := self.db.run(workers.reclaim()):
                    queues.update(self.db.run(coordinator.queues_of([lease.item_id for lease in taken])))
                if queues:
                    self.db.run(workers.wake(sorted(queues)))
