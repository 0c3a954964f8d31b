"""What submits hand to this worker while it waits for work: an item that is held already, and only has to be fetched.

```
 submit ----------> held ----------> fetched, running
                     |  a notice tells of it, or the next poll
                     +--> ready: beyond the free slots, behind a loop that stands still, at a drain (`adopt`)
```
Who fetches, the loop or the thread that watches it, takes an item by its id in `_known`: begun or given back, once.
"""

import asyncio
import threading
from collections.abc import Sequence

from agentos.core.logs import get_logger
from agentos.core.presence import Heartbeat
from agentos.core.process import monotonic
from agentos.core.vigil import Notices
from agentos.store.calls import items, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.store.errors import DatabaseUnavailable
from agentos.worker.behind import Behind
from agentos.worker.lanes import Lanes
from agentos.worker.outage import TROUBLE, reason
from agentos.worker.running import Attempt

log = get_logger(__name__)

MOST_LANES = 64
"""Who serves more free lanes is handed nothing: a row for each would have to be kept."""
LATE_S = 5.0
"""An item whose submit commits more than so long after that of a later item was fetched is found by `adopt`."""
LOOK_S = 1.25
"""How often a worker looks that is handed work and comes to no idle poll."""


class Handed:
    """Of one worker id, which `heartbeat` beats for."""

    def __init__(self, db: AsyncDatabase, heartbeat: Heartbeat, lanes: Lanes, behind: Behind) -> None:
        self._db = db
        self._heartbeat = heartbeat
        self._worker_id = heartbeat.worker_id
        self._notice = workers.handed_to(heartbeat.worker_id)
        self._lanes = lanes
        self._behind = behind
        self._held = behind.held
        self._slots = behind.slots
        self._lock = threading.Lock()
        self._known: set[int] = set()
        """Items above `_above` that were fetched once, whatever became of them."""
        self._above = self._before = 0
        self._moved_at = self._looked_at = monotonic()
        self._stood_at = -LATE_S
        self._offered = 0
        self._giving: threading.Thread | None = None
        self._fetched = False
        self.told = False
        """Something was handed to it, or may have been."""

    def noticed(self, notices: Notices) -> None:
        """One of them says that something was handed to it; none of them: any may have come."""
        if not notices or self._notice in notices:
            self.told = True
            self._held.changed.set()

    def is_due(self) -> bool:
        """Whether to fetch now. Not after what was fetched: a turn that completes and claims comes between, however
        much is handed over.
        """
        again, self._fetched = self._fetched, False
        return not again and (self.told or (self._heartbeat.standing_by and monotonic() - self._looked_at > LOOK_S))

    @property
    def offered(self) -> bool:
        """Whether anything can have been handed to it so far."""
        return self._offered > 0

    async def offer(self, epoch: int) -> None:
        """After a claim of this epoch that found nothing: let submits know which lanes it serves, if they do not."""
        if self._heartbeat.on_notice is None or self._lanes.alone or self._offered == self._lanes.looks:
            return
        looks, lanes = self._lanes.looks, self._lanes.unlimited
        taken = lanes if len(lanes) <= MOST_LANES else []
        if await self._db.run(workers.offer(self._worker_id, epoch, taken, self._slots.concurrency)):
            self._offered = looks

    def stand(self, *, idle: bool) -> None:
        """Before the loop waits. With half of the slots free it stays as it was: one with little to do says it once."""
        if self._slots.queue or 2 * self._slots.free < self._slots.concurrency:
            self.stand_down()
        elif idle and self._offered == self._lanes.looks:
            self._heartbeat.stand_by()

    def stand_down(self) -> None:
        """It wants nothing more now. From any thread."""
        if self._heartbeat.standing_by:
            self._stood_at = monotonic()
        self._heartbeat.stand_down()

    def unknown(self) -> tuple[int, Sequence[int]]:
        """What to look for: items above the first, but not the second."""
        with self._lock:
            self._looked_at = now = monotonic()
            if now - self._moved_at > LATE_S:
                self._above, self._before = self._before, max(self._known, default=self._before)
                self._known = {item_id for item_id in self._known if item_id > self._above}
                self._moved_at = now
            return self._above, sorted(self._known)

    async def fetch(self, timeout_s: float) -> tuple[ClaimedItem, ...]:
        """Begin what was handed over, as far as there are slots; others may run what is beyond, and nothing is charged.
        Returns what was fetched. Raises DatabaseUnavailable: fetch again.
        """
        self.told = False
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._db.run(items.handed(self._worker_id, *self.unknown()))
        except TimeoutError as exc:
            self.told = True
            raise DatabaseUnavailable(f"a look at what was handed over had no answer for {timeout_s:g} s") from exc
        except BaseException:
            self.told = True
            raise
        mine = self._taken(found)
        self._fetched = bool(mine)
        self._slots.fill()
        free = self._slots.free if mine else 0
        for item in reversed(mine[:free]):  # before what was prefetched: they count as started already
            attempt = Attempt(item, self._worker_id)
            self._held.add(attempt)
            self._slots.queue.appendleft(attempt)
        self._slots.fill()
        self.stand(idle=False)  # a loop that never waits, for all that is handed over, would not come to it
        counts.claimed_items += len(mine)
        counts.handed_items += len(mine)
        if beyond := mine[free:]:
            await self._give_back(beyond)
        return mine

    async def _give_back(self, beyond: Sequence[ClaimedItem]) -> None:
        try:
            await self._db.run(items.release(self._worker_id, [(item.item_id, item.token) for item in beyond]))
        except BaseException:
            self._behind.unsure()
            raise
        for queue in {item.queue for item in beyond}:
            self._behind.waker.wake(queue)

    def _taken(self, found: Sequence[ClaimedItem]) -> tuple[ClaimedItem, ...]:
        """Those of them that nobody else in this process took."""
        with self._lock:
            mine = tuple(item for item in found if item.item_id not in self._known and item.item_id > self._above)
            self._known.update(item.item_id for item in mine)
        return mine

    def stalled(self) -> None:
        """From the thread that watches, while the loop stands still: nothing more is to be handed over, and what was
        is given back, without waiting for it. A hand-over under way when the worker stood down may still commit.
        """
        self.stand_down()
        if monotonic() - self._stood_at < LOOK_S and not (self._giving and self._giving.is_alive()):
            self._giving = threading.Thread(target=self._give_all_back, name="agentos-handed", daemon=True)
            self._giving.start()

    def _give_all_back(self) -> None:
        mine: Sequence[ClaimedItem] = ()
        try:
            mine = self._taken(self._behind.db.run(items.handed(self._worker_id, *self.unknown())))
            if not mine:
                return
            log.warning("the event loop stands still; what was handed over meanwhile is given back", count=len(mine))
            self._behind.db.run(items.release(self._worker_id, [(item.item_id, item.token) for item in mine]))
        except TROUBLE as exc:
            log.warning("it is not known whether what was handed over came back", error=reason(exc))
            self._behind.loop.call_soon_threadsafe(self._behind.unsure)
        for queue in {item.queue for item in mine}:
            self._behind.waker.wake(queue)
