"""The items this process holds: which run, which are done and wait to be flushed, how they are stopped."""

import asyncio
import enum
from dataclasses import dataclass, field

from agentos.store.calls.items import ClaimedItem


class Stop(enum.Enum):
    """Why a running handler is stopped."""

    CANCELLED = "the task was cancelled"
    DRAIN = "the worker is shutting down"
    LOST = "the lease is lost"
    PARKED = "the item is parked"


@dataclass(slots=True)
class Attempt:
    """One claimed item in this process. `stop`: set before its handler is cancelled, tells how it ends.

    `running` only while a handler can be cancelled: a task cancelled before its first step would never run, and one
    that writes its end has ended already.
    """

    item: ClaimedItem
    worker_id: int
    task: "asyncio.Task[None] | None" = None
    running: bool = False
    stop: Stop | None = None
    in_outage: bool = False

    def end(self, why: Stop) -> None:
        """Cancel the handler; how its lease ends depends on `why`. The first reason counts."""
        if self.stop is None:
            self.stop = why
            if self.running and self.task is not None:
                self.task.cancel()


@dataclass(slots=True)
class Held:
    """Everything this process holds, by item id. An attempt leaves when its end is durable or its lease lost."""

    attempts: dict[int, Attempt] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, attempt: Attempt) -> None:
        """A claimed item."""
        self.attempts[attempt.item.item_id] = attempt

    def remove(self, attempt: Attempt) -> None:
        """Its end is durable, or somebody else's; its slot is free."""
        if self.attempts.get(attempt.item.item_id) is attempt:
            del self.attempts[attempt.item.item_id]
        self.changed.set()

    def end_all(self, why: Stop) -> None:
        """Stop every handler."""
        for attempt in list(self.attempts.values()):
            attempt.end(why)

    def end_items(self, item_ids: frozenset[int], why: Stop) -> None:
        """Stop these, as far as they are here."""
        for item_id in item_ids & self.attempts.keys():
            self.attempts[item_id].end(why)

    def __len__(self) -> int:
        return len(self.attempts)
