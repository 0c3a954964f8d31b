"""Turns: completions and the next claim in one round trip; and what is done when it is not known what one did."""

import asyncio
import random

from agentos.core.logs import get_logger
from agentos.core.process import monotonic
from agentos.store.calls import items, workers
from agentos.store.calls.items import Claimed
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Call
from agentos.worker.flush import Completions, as_sent
from agentos.worker.pace import CLAIM_MOST
from agentos.worker.running import Attempt, Held, Stop
from agentos.worker.slots import Slots

log = get_logger(__name__)


class Claims:
    """The claims of one worker id. One is in flight at most; lanes are taken in turn, so that none starves."""

    def __init__(self, db: AsyncDatabase, worker_id: int, ttl_s: float, held: Held, slots: Slots) -> None:
        self._db = db
        self._worker_id = worker_id
        self._timeout_s = ttl_s / 3
        self._held = held
        self._slots = slots
        self._epoch = 0
        self._claim_no = slots.begun
        self._marked: set[int] = set()
        self._lanes: list[int] = []
        self._solo: list[int] = []
        self.ambiguous = False

    async def serve(self, queues: tuple[str, ...], kinds: list[str], versions: list[int], *, solo: bool) -> None:
        """Find the lanes of what this worker serves; `solo`: the lanes of items that must run alone."""
        lanes = await self._db.run(workers.lanes_of(queues, kinds, versions))
        self._lanes = [-lane for lane in lanes] if solo else list(lanes)
        self._solo = [] if solo else [-lane for lane in lanes]

    async def turn(self, completions: Completions, room: int, ahead: int) -> Claimed:
        """Complete what is pending, claim up to `room` items, put them in the queue. `ahead`: how many of those that
        are held may start before the next turn has its reply; items beyond are prefetched, and not charged a crash.

        Raises DatabaseUnavailable: call again, after `flush` and `adopt`; WorkerDead: start again under a new id.
        """
        batch = [] if completions.uncertain else completions.batch()
        random.shuffle(self._lanes)
        waiting = len(self._slots.queue)
        begun = self._slots.to_begin(ahead)
        claim_no = self._claim_no + 1 if waiting >= ahead and waiting else 0
        over = [n for n in self._marked if not self._held.prefetched.get(n)]
        if not batch and not begun and not over and not claim_no:
            call = items.claim(self._worker_id, self._epoch, self._lanes, min(room, CLAIM_MOST), self._solo)
        else:
            call = items.turn(
                self._worker_id, self._epoch, as_sent(batch), self._lanes, min(room, CLAIM_MOST), self._solo,
                claim_no=claim_no or None, begun=begun, over=over,
            )  # fmt: skip
        self.ambiguous, completions.uncertain = True, bool(batch) or completions.uncertain
        sent = monotonic()
        claimed = await self._answered(call)
        counts.claims.observe(monotonic() - sent)
        counts.claimed_items += len(claimed.items)
        self.ambiguous = False
        self._claim_no = max(self._claim_no, claim_no)
        self._marked.update(begun)
        self._marked.difference_update(over)
        for n in over:
            self._held.prefetched.pop(n, None)
        if batch:
            completions.settled(batch, claimed.fenced)
        self._begin(claimed, begun, claim_no)
        return claimed

    def _begin(self, claimed: Claimed, begun: list[int], claim_no: int) -> None:
        slots = self._slots
        if begun:
            slots.begun = begun[-1]
        for item in claimed.items:
            attempt = Attempt(item, self._worker_id, claim_no)
            self._held.add(attempt)
            slots.queue.append(attempt)
        slots.fill()

    async def _answered(self, call: Call[Claimed]) -> Claimed:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._db.run(call)
        except TimeoutError as exc:
            raise DatabaseUnavailable(f"a claim had no answer for {self._timeout_s:g} s") from exc

    async def at_risk(self) -> int:
        """This worker's share of the leases that may be reclaimed before long, and must then run alone."""
        if not self._solo:
            return 0
        risk = await self._db.run(workers.leases_at_risk(self._lanes))
        return -(-risk.leases // max(risk.workers, 1))

    async def adopt(self) -> None:
        """Make memory and database agree: after a claim whose reply was lost, and every now and then.

        What the database holds for this worker and nobody here knows is given back; what is known here and not held any
        more is stopped.
        """
        adopted = await self._db.run(workers.adopt(self._worker_id))
        self._epoch, self.ambiguous = adopted.claim_epoch, False
        known = {item_id: attempt.item.token for item_id, attempt in self._held.attempts.items()}
        unknown = [(item_id, token) for item_id, token in adopted.held.items() if known.get(item_id) != token]
        if unknown:
            log.warning("items were held that nobody here knew; given back", count=len(unknown))
            await self._db.run(items.release(self._worker_id, unknown))
        gone = frozenset(item_id for item_id, token in known.items() if adopted.held.get(item_id) != token)
        self._held.end_items(gone, Stop.LOST)
