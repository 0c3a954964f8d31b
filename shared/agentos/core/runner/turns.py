"""Whose turn it is: presence, claims, waits and the sweep of a runner, which has no coordinator to rely on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentos.core.flows.tools import ToolCall
from agentos.core.kinds import KINDS
from agentos.core.logs import get_logger
from agentos.core.presence import Presence
from agentos.core.process import host, process_is_gone
from agentos.core.tool import Tool, bash
from agentos.store.calls import items, tasks, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import Database
from agentos.store.errors import ContentSealed, InvalidInput, QueuePaused, WorkerDead
from agentos.store.settings import Settings

log = get_logger(__name__)

_POLL_S = 0.05
_LIMIT_POLL_S = 0.2
_LONGEST_WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Turn:
    """`over`: the task has ended. `kinds`: of its open items."""

    over: bool
    kinds: tuple[str, ...]


class Turns:
    """A runner's life in the database: alive while it runs, and its own coordinator."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._presence: Presence | None = None

    @property
    def worker_id(self) -> int:
        """Under which the runner holds items. Raises InvalidInput: outside a run."""
        return self._present.worker_id

    @property
    def _present(self) -> Presence:
        if self._presence is None:
            raise InvalidInput(
                "this runner is not running a task, so it holds no items",
                hint="call run_task, or pass what LeaseManager.acquire_lease gave",
            )
        return self._presence

    @contextmanager
    def present(self) -> Iterator[None]:
        """Be alive for the block. Raises InvalidInput: if the runner runs a task already."""
        if self._presence is not None:
            raise InvalidInput("this runner runs a task already", hint="make one TaskRunner for each task at a time")
        self.bury_local_dead()
        with Presence(self._db, role="runner", kinds=sorted(KINDS), settings=self._settings) as presence:
            self._presence = presence
            try:
                yield
            finally:
                self._presence = None

    def bury_local_dead(self) -> None:
        """Declare workers of this host dead whose process is provably gone: their expiry need not be waited for."""
        gone = [each for each in self._db.run(workers.local_workers(host())) if process_is_gone(each.process, each.pid)]
        if gone:
            log.info("buried workers whose process is gone", pids=[each.pid for each in gone])
            self._db.run(workers.declare_dead([each.worker_id for each in gone]))

    def next(self, task_id: str) -> Turn:
        """Sweep, and see whether the task may go on. Raises TaskHeld: if a living worker holds an item of it."""
        self._db.run(workers.reclaim())
        self._db.run(workers.promote())
        ended = self._db.run(tasks.begin_run(task_id, self.worker_id))
        if ended is not None:
            return Turn(True, ())
        return Turn(False, self._db.run(tasks.task_progress(task_id)).kinds)

    def claim(self, task_id: str) -> ClaimedItem | None:
        """Take the next ready item of the task; waits while limits have no room for it.

        Raises WorkerDead: if the runner was away for longer than its TTL. QueuePaused: if that is what it waits for.
        ContentSealed: if this process cannot open its payload; the item is given back.
        """
        waits = False
        while not (claimed := self._db.run(items.claim_task(self.worker_id, self._present.epoch, task_id, 1))):
            queue = self._db.run(items.held_back(task_id))
            if queue is None:
                return None
            if queue:
                raise QueuePaused(
                    f"queue {queue!r} is paused, and what is left of task {task_id} is in it",
                    hint=f"agentos queue resume {queue}; then run the task again",
                )
            if not waits:
                log.info("waiting for a limit", task_id=task_id)
            waits = True
            time.sleep(_LIMIT_POLL_S)
            self._db.run(workers.reclaim())
        item = claimed[0]
        if isinstance(item.payload, ContentSealed):
            self._db.run(items.release(self.worker_id, [(item.item_id, item.token)]))
            raise item.payload
        return item

    def wait(self, task_id: str) -> bool:
        """Nothing is ready: wait for the next scheduled item. False: only a person can let the task go on."""
        progress = self._db.run(tasks.task_progress(task_id))
        if progress.ended:
            return True
        if progress.next_run_in_s is not None:
            time.sleep(min(max(progress.next_run_in_s, 0.001), _LONGEST_WAIT_S))
            return True
        if progress.status in ("waiting", "paused"):
            return False
        self._db.run(workers.repair())
        time.sleep(_POLL_S)
        return True

    def wait_for_trust(self) -> None:
        """Before a side effect: while no beat got through for two thirds of the TTL the lease may be somebody else's.

        Raises WorkerDead: if the runner was declared dead.
        """
        while self._presence is not None and not self._presence.trusted():
            if self._presence.heartbeat.lost:
                raise WorkerDead("this runner could not beat within its TTL", hint="run the task again")
            time.sleep(_POLL_S)

    def tools(self) -> dict[str, Tool]:
        """The tools of an item, each of which waits for trust before it does anything."""

        def run(call: ToolCall, arguments: Any) -> Any:
            self.wait_for_trust()
            return bash.run(call, arguments)

        return {"bash": Tool("bash", run, bash.policy)}
