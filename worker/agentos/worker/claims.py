"""Turns: completions and the next claim in one round trip; and what is done when it is not known what one did."""

import asyncio
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from agentos.core.logs import get_logger
from agentos.core.presence import Heartbeat
from agentos.core.process import monotonic
from agentos.store.calls import items, workers
from agentos.store.calls.items import Claimed
from agentos.store.calls.workers import AtRisk
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Call
from agentos.worker.behind import Behind
from agentos.worker.flush import Completions, as_sent
from agentos.worker.handed import Handed
from agentos.worker.lanes import Lanes
from agentos.worker.pace import CLAIM_MOST
from agentos.worker.running import Attempt, Held, Stop
from agentos.worker.slots import Slots

log = get_logger(__name__)
T = TypeVar("T")


class Claims:
    """The claims of one worker id. One is in flight at most; lanes are taken in turn, so that none starves."""

    def __init__(
        self, db: AsyncDatabase, heartbeat: Heartbeat, held: Held, slots: Slots, lanes: Lanes, behind: Behind
    ) -> None:
        self._db = db
        self._worker_id = heartbeat.worker_id
        self._timeout_s = heartbeat.ttl_s / 3
        self._held = held
        self._slots = slots
        self._epoch = 0
        self._claim_no = slots.begun
        self.handed = behind.handed = Handed(db, heartbeat, lanes, behind)
        self._marked: set[int] = set()
        self._lanes = lanes
        self._limited_first = False
        self.ambiguous = False

    async def turn(self, completions: Completions, room: int, ahead: int) -> Claimed:
        """Complete what is pending, claim up to `room` items, put them in the queue. `ahead`: how many of those that
        are held may start before the next turn has its reply; items beyond are prefetched, and not charged a crash.

        Raises DatabaseUnavailable, LanesChanged: call again, after `flush` and `adopt`; WorkerDead: start again under a
        new id.
        """
        lanes = self._lanes
        if not lanes.idle:
            await lanes.look_if_new()
        self._limited_first = bool(lanes.limited) and not self._limited_first
        most = 0 if self._limited_first else min(room, CLAIM_MOST)
        asked = lanes.free.order()
        batch = [] if completions.uncertain else completions.batch()
        waiting = len(self._slots.queue)
        begun = self._slots.to_begin(ahead)
        claim_no = self._claim_no + 1 if waiting >= ahead and waiting else 0
        over = [n for n in self._marked if not self._held.prefetched.get(n)]
        if not batch and not begun and not over and not claim_no:
            if lanes.idle and not lanes.woken:
                call = items.claim_idle(
                    self._worker_id, self._epoch, asked, most, lanes.solo, lanes.newest, *self.handed.unknown()
                )
            else:
                call = items.claim(self._worker_id, self._epoch, asked, most, lanes.solo)
        else:
            call = items.turn(
                self._worker_id, self._epoch, as_sent(batch), asked, most, lanes.solo_while_busy(),
                claim_no=claim_no or None, begun=begun, over=over,
            )  # fmt: skip
        completions.uncertain = bool(batch) or completions.uncertain
        sent = monotonic()
        claimed = await self._answered(call)
        counts.claims.observe(monotonic() - sent)
        counts.claimed_items += len(claimed.items)
        self._claim_no = max(self._claim_no, claim_no)
        self._marked.update(begun)
        self._marked.difference_update(over)
        for n in over:
            self._held.prefetched.pop(n, None)
        if batch:
            completions.settled(batch, claimed.fenced)
        self._begin(claimed, begun, claim_no)
        if most:
            lanes.free.claimed(asked, claimed.items, full=len(claimed.items) >= most)
        if lanes.limited:
            claimed = await self._with_limited(claimed, room)
        lanes.idle = not claimed.items
        if lanes.idle:
            await self._found_nothing(claimed)
        return claimed

    async def _found_nothing(self, claimed: Claimed) -> None:
        if claimed.handed:
            self.handed.told = True
            self._held.changed.set()
            return
        await self.handed.offer(self._epoch)
        if self._lanes.woken and await self._lanes.look_if_new(at_once=True):
            self._held.changed.set()

    async def _with_limited(self, claimed: Claimed, room: int) -> Claimed:
        """Beside that, what limits leave: after the completions, whose places are free again. Who claims first changes
        from turn to turn, so that neither starves.
        """
        slots, lanes = self._slots, self._lanes
        slots.fill()
        most = min(room - len(claimed.items), slots.free or max(slots.concurrency // 2, 1))
        asked = lanes.limited.order()
        limited = await self._answered(items.claim_limited(self._worker_id, self._epoch, asked, max(most, 0)))
        lanes.limited.claimed(asked, limited, full=len(limited) >= most)
        for item in reversed(limited):  # before what was prefetched: they count already
            attempt = Attempt(item, self._worker_id, 0)
            self._held.add(attempt)
            slots.queue.appendleft(attempt)
        slots.fill()
        rest = min(room, slots.free) - len(limited) if self._limited_first else 0
        if rest > 0:
            asked = lanes.free.order()
            more = await self._answered(items.claim(self._worker_id, self._epoch, asked, rest))
            lanes.free.claimed(asked, more.items, full=len(more.items) >= rest)
            self._begin(more, [], 0)
            limited += more.items
        return replace(claimed, items=(*claimed.items, *limited))

    def _begin(self, claimed: Claimed, begun: list[int], claim_no: int) -> None:
        slots = self._slots
        if begun:
            slots.begun = begun[-1]
        for item in claimed.items:
            attempt = Attempt(item, self._worker_id, claim_no)
            self._held.add(attempt)
            slots.queue.append(attempt)
        slots.fill_soon()

    async def _answered(self, call: Call[T]) -> T:
        """Only sets `ambiguous`: others do so too while a claim is under way, and its reply says nothing of theirs."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._db.run(call)
        except TimeoutError as exc:
            self.ambiguous = True
            raise DatabaseUnavailable(f"a claim had no answer for {self._timeout_s:g} s") from exc
        except BaseException:
            self.ambiguous = True
            raise

    async def fetch(self) -> Claimed:
        """What submits have handed over, begun as what a claim brings. Raises DatabaseUnavailable: call again."""
        return Claimed(await self.handed.fetch(self._timeout_s), solo_waiting=False)

    async def leave(self, completions: Completions) -> None:
        """Begin to drain: nothing more is handed over then; what was by then, and is not known here, is given back."""
        self.handed.stand_down()
        self.ambiguous = self.ambiguous or self.handed.offered
        await self._db.run(workers.retire_worker(self._worker_id, "draining"))
        if self.ambiguous:
            await completions.flush()
            await self.adopt()

    async def give_back_queue(self) -> set[str]:
        """Items that were prefetched and have not begun: others may run them, and nothing is charged. Returns whose.

        Without a reply they are nobody's here all the same, and `adopt` gives back those that are held still: in the
        queue they would begin, perhaps beside whoever has them now.
        """
        taken = self._slots.take_queue()
        for attempt in taken:
            self._held.remove(attempt)
        if taken:
            given = [(attempt.item.item_id, attempt.item.token) for attempt in taken]
            try:
                await self._db.run(items.release(self._worker_id, given))
            except BaseException:
                self.ambiguous = True
                raise
        return {attempt.item.queue for attempt in taken}

    async def at_risk(self) -> AtRisk:
        """The leases that may be reclaimed before long, and must then run alone, and how many workers share them."""
        served = self._lanes.served
        return await self._db.run(workers.leases_at_risk(served)) if served else AtRisk(leases=0, workers=1)

    async def adopt(self, *, fetch: bool = False) -> None:
        """Make memory and database agree: after a claim whose reply was lost, and every now and then.

        What the database holds for this worker and nobody here knows is given back; what is known here and not held any
        more is stopped. `fetch`: of what nobody knows, that which was just handed over begins.
        """
        self.ambiguous = False  # what ends meanwhile may say again that it is
        try:
            await self._adopt(fetch=fetch)
        except BaseException:
            self.ambiguous = True
            raise

    async def _adopt(self, *, fetch: bool) -> None:
        adopted = await self._db.run(workers.adopt(self._worker_id))
        self._epoch = adopted.claim_epoch
        await self._lanes.look()  # whoever raised the epoch too may have changed what there is to claim
        gone = frozenset(item_id for item_id, token in self._known() if adopted.held.get(item_id) != token)
        self._held.end_items(gone, Stop.LOST)
        if fetch and adopted.held.items() - set(self._known()):
            await self.fetch()
        if unknown := [*(adopted.held.items() - set(self._known()))]:
            log.warning("items were held that nobody here knew; given back", count=len(unknown))
            await self._db.run(items.release(self._worker_id, unknown))

    def _known(self) -> list[tuple[int, UUID]]:
        return [(item_id, attempt.item.token) for item_id, attempt in self._held.attempts.items()]
