"""Claiming, and what is done when it is not known whether a claim happened."""

import asyncio
import random

from agentos.core.logs import get_logger
from agentos.store.calls import items, workers
from agentos.store.calls.items import Claimed
from agentos.store.connect import AsyncDatabase
from agentos.store.errors import DatabaseUnavailable
from agentos.worker.running import Held, Stop

log = get_logger(__name__)


class Claims:
    """The claims of one worker id. One is in flight at most; lanes are taken in turn, so that none starves."""

    def __init__(self, db: AsyncDatabase, worker_id: int, ttl_s: float) -> None:
        self._db = db
        self._worker_id = worker_id
        self._timeout_s = ttl_s / 3
        self._epoch = 0
        self._ambiguous = False
        self._lanes: list[int] = []
        self._solo: list[int] = []

    async def serve(self, queues: tuple[str, ...], kinds: tuple[str, ...], *, solo: bool) -> None:
        """Find the lanes of what this worker serves; `solo`: the lanes of items that must run alone."""
        lanes = await self._db.run(workers.lanes_of(queues, kinds))
        self._lanes = [-lane for lane in lanes] if solo else list(lanes)
        self._solo = [] if solo else [-lane for lane in lanes]

    async def claim(self, limit: int, held: Held) -> Claimed:
        """Take up to `limit` items. Raises DatabaseUnavailable: call again; WorkerDead: start again under a new id."""
        if self._ambiguous:
            await self.adopt(held)
        random.shuffle(self._lanes)
        self._ambiguous = True
        try:
            async with asyncio.timeout(self._timeout_s):
                claimed = await self._db.run(items.claim(self._worker_id, self._epoch, self._lanes, limit, self._solo))
        except TimeoutError as exc:
            raise DatabaseUnavailable(f"a claim had no answer for {self._timeout_s:g} s") from exc
        self._ambiguous = False
        return claimed

    async def at_risk(self) -> int:
        """This worker's share of the leases that may be reclaimed before long, and must then run alone."""
        if not self._solo:
            return 0
        risk = await self._db.run(workers.leases_at_risk(self._lanes))
        return -(-risk.leases // max(risk.workers, 1))

    def doubt(self) -> None:
        """Memory and database may disagree: `adopt` before the next claim."""
        self._ambiguous = True

    async def adopt(self, held: Held) -> None:
        """Make memory and database agree: after a claim whose reply was lost, and every now and then.

        What the database holds for this worker and nobody here knows is given back; what is known here and not held any
        more is stopped.
        """
        adopted = await self._db.run(workers.adopt(self._worker_id))
        self._epoch, self._ambiguous = adopted.claim_epoch, False
        known = {item_id: attempt.item.token for item_id, attempt in held.attempts.items()}
        unknown = [(item_id, token) for item_id, token in adopted.held.items() if known.get(item_id) != token]
        if unknown:
            log.warning("items were held that nobody here knew; given back", count=len(unknown))
            await self._db.run(items.release(self._worker_id, unknown))
        gone = frozenset(item_id for item_id, token in known.items() if adopted.held.get(item_id) != token)
        held.end_items(gone, Stop.LOST)
