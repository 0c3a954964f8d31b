"""What running handlers tell (progress, log lines, tokens), gathered and written a few times a second.

Telling costs a handler no round trip and the database no commit per line or token. What was told is written at the
latest when its item ends or parks; a process that dies takes what it had not written with it, at most `EVERY_S` of it.
Nothing is decided by what was told.
"""

import asyncio
import threading
from typing import Any

from agentos.core.logs import get_logger
from agentos.store.calls.items import Fence
from agentos.store.calls.stream import Told, tell
from agentos.store.errors import AgentOSError
from agentos.store.run import AsyncRunner

log = get_logger(__name__)

EVERY_S = 0.15
MOST_TOLD = 5_000
"""Events kept while the database is away; then the oldest go, and the log says how many."""
TOKENS_LIMIT = 60_000
"""Characters of one `tokens` event."""


class Telling:
    """One per process. Any thread may tell; the event loop writes."""

    def __init__(self, db: AsyncRunner, loop: asyncio.AbstractEventLoop) -> None:
        self._db = db
        self._loop = loop
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed = False
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, fence: Fence, attempt: int, event: str, data: dict[str, Any]) -> None:
        """Remember it for the next write. Of an item's progress only the newest is kept, its tokens are joined."""
        told = Told(fence, attempt, event, data)
        with self._lock:
            if not self._joined(told):
                self._told.append(told)
            if self._armed:
                return
            self._armed = True
        self._loop.call_soon_threadsafe(self._arm)

    @property
    def waits(self) -> bool:
        """Whether something is to be written."""
        return bool(self._told)

    async def flush_of(self, fence: Fence) -> None:
        """Write what there is if something of this item is among it: its lease is about to end."""
        if self._told and any(each.fence == fence for each in self._told):
            await asyncio.shield(self.flush())

    async def flush(self) -> None:
        """Write what there is. An outage of the database keeps it for the next time."""
        async with self._writing:
            with self._lock:
                told, self._told = self._told, []
            workers = {each.fence.worker_id for each in told}
            for worker_id in workers:
                await self._write(worker_id, [each for each in told if each.fence.worker_id == worker_id])

    def _joined(self, told: Told) -> bool:
        for at in range(len(self._told) - 1, -1, -1):
            last = self._told[at]
            if last.fence != told.fence:
                continue
            if told.event == "progress" == last.event:
                self._told[at] = told
                return True
            if told.event == "tokens" == last.event and _joinable(last.data, told.data):
                self._told[at] = Told(
                    told.fence, told.attempt, "tokens", {**last.data, "text": last.data["text"] + told.data["text"]}
                )
                return True
            return False
        return False

    def _arm(self) -> None:
        self._loop.call_later(EVERY_S, self._start)

    def _start(self) -> None:
        self._armed = False
        task = self._loop.create_task(self.flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, worker_id: int, told: list[Told]) -> None:
        try:
            await self._db.run(tell(worker_id, told))
        except AgentOSError as exc:
            log.warning("what handlers told is not written yet", error=exc.message, count=len(told))
            with self._lock:
                self._told = [*told, *self._told]
                if (lost := len(self._told) - MOST_TOLD) > 0:
                    del self._told[:lost]
                    log.error("what handlers told is lost", count=lost)
        except BaseException:
            with self._lock:
                self._told = [*told, *self._told]
            raise


def _joinable(last: dict[str, Any], new: dict[str, Any]) -> bool:
    return last.get("call") == new.get("call") and len(last["text"]) + len(new["text"]) <= TOKENS_LIMIT
