"""Who of several coordinators does the work. It saves work, nothing else: every duty is safe without it.

The lead is a row that ends after `LEASE` of the TTL and is asked for every `ASK` of it, by its holder and by the
others alike. So a holder that dies leaves a gap of at most LEASE + ASK of the TTL, and one that stops cleanly of ASK.
"""

import asyncio

from agentos.core.logs import get_logger
from agentos.store.calls import workers
from agentos.store.connect import AsyncDatabase

log = get_logger(__name__)

NAME = "coordinator"
LEASE, ASK = 0.6, 0.2


class Leadership:
    """Whether this process leads. `holder` is its random id."""

    def __init__(self, holder: int, ttl_s: float) -> None:
        self.ask_s = ttl_s * ASK
        self._holder = holder
        self._lease_s = ttl_s * LEASE
        self._leading = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether the last answer was yes."""
        return self._leading.is_set()

    async def wait(self) -> None:
        """Return when this process leads."""
        await self._leading.wait()

    async def ask(self, db: AsyncDatabase) -> None:
        """Take or keep the lead."""
        term = await db.run(workers.lead(NAME, self._holder, self._lease_s))
        if term is None:
            self.lose("another coordinator leads")
        elif not self.leading:
            log.info("leading", term=term)
            self._leading.set()

    def lose(self, why: str) -> None:
        """Stop leading; nothing happens if it did not lead."""
        if self.leading:
            log.warning("not leading any more", reason=why)
            self._leading.clear()

    async def resign(self, db: AsyncDatabase) -> None:
        """Let another take over at once."""
        if self.leading:
            await db.run(workers.resign(NAME, self._holder))
            self._leading.clear()
