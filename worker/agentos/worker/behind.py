"""What waits in this process behind a handler that keeps the event loop from running: others may run it.

Nothing on the loop can give it back, so two others do: the handler of a signal, in the main thread, takes the queue
while the loop stands still, and a thread tells the database. What a claim brings whose reply nobody reads meanwhile
stays until the loop runs again, or its handler is interrupted after the TTL: `Claims` has one claim in flight at most.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentos.core.logs import get_logger
from agentos.core.wake import Waker
from agentos.store.calls import items
from agentos.store.connect import Database
from agentos.worker.outage import TROUBLE, reason
from agentos.worker.running import Attempt, Held
from agentos.worker.slots import Slots

if TYPE_CHECKING:
    from agentos.worker.handed import Handed

log = get_logger(__name__)


class Behind:
    """`unsure` is called on the loop when it is not known whether the database has taken them back: then `adopt` finds
    out. Dies the process before the commit, they come back by `reclaim` and are charged nothing unless their claim had
    begun; after it, they are ready.
    """

    def __init__(self, db: Database, slots: Slots, held: Held, waker: Waker, unsure: Callable[[], None]) -> None:
        self.db = db
        self.slots = slots
        self.held = held
        self.waker = waker
        self.unsure = unsure
        self.loop = asyncio.get_running_loop()
        self.handed: Handed | None = None
        self._taken: queue.SimpleQueue[list[Attempt]] = queue.SimpleQueue()

    @property
    def waits(self) -> bool:
        """Whether something does."""
        return bool(self.slots.queue)

    def take(self) -> None:
        """In the main thread, while a handler runs there: a lock might be held by the code that it interrupts."""
        if taken := self.slots.take_queue():
            self._taken.put(taken)

    def stalled(self) -> None:
        """From the thread that watches, while the loop stands still: what submits hand over would wait as well."""
        if self.handed is not None:
            self.handed.stalled()

    def give_back(self) -> None:
        """From the thread that watches: give back what was taken, without waiting for it."""
        while not self._taken.empty():
            threading.Thread(
                target=self._release, args=(self._taken.get(),), name="agentos-behind", daemon=True
            ).start()

    def _release(self, taken: list[Attempt]) -> None:
        log.warning("a handler blocks the event loop; what waits behind it is given back", count=len(taken))
        sure = False
        try:
            self.db.run(items.release(taken[0].worker_id, [(a.item.item_id, a.item.token) for a in taken]))
            sure = True
        except TROUBLE as exc:
            log.warning("it is not known whether that arrived", error=reason(exc))
        finally:
            self.loop.call_soon_threadsafe(self._forget, taken)
            if not sure:  # behind it: who asks what is held would take them for known
                self.loop.call_soon_threadsafe(self.unsure)
        for name in {attempt.item.queue for attempt in taken}:
            self.waker.wake(name)

    def _forget(self, taken: list[Attempt]) -> None:
        for attempt in taken:
            self.held.remove(attempt)
