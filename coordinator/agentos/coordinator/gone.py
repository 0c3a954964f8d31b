"""Workers whose process died: the server sees the end of their sessions long before their TTL runs out.

A guess that saves time, nothing else. One that lives and lost all its sessions, and does not come back in time, loses
its leases as if its TTL had ended: the fence refuses what it still writes.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentos.core.logs import get_logger
from agentos.core.process import monotonic
from agentos.store.calls import workers
from agentos.store.calls.workers import GoneWorker
from agentos.store.connect import AsyncDatabase

log = get_logger(__name__)

LOOK_S = 0.5


@dataclass(slots=True)
class Gone:
    """Declares dead who has had neither a session nor a beat for `gone_s` seconds. Remembers since when who is gone."""

    gone_s: float
    reclaim: Callable[[AsyncDatabase], Awaitable[object]]
    _since: dict[GoneWorker, float] = field(default_factory=dict)

    async def look(self, db: AsyncDatabase) -> float:
        """One look, and what follows. Returns the seconds until the next."""
        asked = monotonic()
        found = await db.run(workers.gone_workers())
        if any(each not in self._since for each in found):
            await db.run(workers.wake([workers.GONE]))  # who takes over makes processes ready meanwhile
        self._since = {each: self._since.get(each, asked) for each in found}
        if due := [each for each, since in self._since.items() if asked - since >= self.gone_s]:
            if dead := await db.run(workers.declare_gone(due)):
                log.warning("workers are gone: none of their sessions is left", count=len(dead), worker_ids=list(dead))
                await self.reclaim(db)
            for each in due:
                del self._since[each]
        waits_s = [since + self.gone_s - monotonic() for since in self._since.values()]
        return max(0.0, min([LOOK_S, *waits_s]))
