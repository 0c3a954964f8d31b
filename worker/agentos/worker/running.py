"""The items this process holds: which run, which are done and wait to be flushed, how they are stopped."""

import asyncio
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentos.store.calls.items import ClaimedItem

if TYPE_CHECKING:
    from agentos.core.tracing.tracer import AttemptSpan


class Stop(enum.Enum):
    """Why a running handler is stopped."""

    CANCELLED = "the task was cancelled"
    DRAIN = "the worker is shutting down"
    LOST = "the lease is lost"
    PARKED = "the item is parked"


def _nobody(_attempt: "Attempt") -> None:
    """Not started yet."""


@dataclass(eq=False)
class Attempt:
    """One claimed item in this process. `stop`: set before its handler is cancelled, tells how it ends.

    `claim_no`: of the claim it was prefetched with; 0: it may start. `running` only while a handler can be cancelled: a
    task cancelled before its first step would never run, and one that writes its end has ended already. `unwilling` is
    called when its handler has not ended within `grace_s`; then the attempt ends without it (`abandoned`). `entered`:
    a line of its handler has run. `paused`: a beat said so since the database was last asked.
    """

    item: ClaimedItem
    worker_id: int
    claim_no: int = 0
    task: "asyncio.Task[None] | None" = field(default=None, init=False)
    running: bool = field(default=False, init=False)
    stop: Stop | None = field(default=None, init=False)
    timed_out: bool = field(default=False, init=False)
    abandoned: bool = field(default=False, init=False)
    in_outage: bool = field(default=False, init=False)
    entered: bool = field(default=False, init=False)
    began: float = field(default=0.0, init=False)
    span: "AttemptSpan | None" = field(default=None, init=False)
    paused: bool = field(default=False, init=False)
    grace_s: float = field(default=2.0, init=False)
    unwilling: "Callable[[Attempt], None]" = field(default=staticmethod(_nobody), init=False)

    def end(self, why: Stop) -> None:
        """Cancel the handler; how its lease ends depends on `why`. The first reason counts."""
        if self.stop is None:
            self.stop = why
            self._cancel()

    def end_later(self, after_s: float) -> None:
        """Its item is parked: what is left of the handler is told to end."""
        asyncio.get_running_loop().call_later(after_s, self.end, Stop.PARKED)

    def take_pause(self) -> bool:
        """Whether it is to be parked for a pause; asked once for each beat that says so."""
        paused, self.paused = self.paused, False
        return paused

    def time_out(self) -> None:
        """Its `timeout_s` is over."""
        self.timed_out = self.running
        self._cancel()

    def _cancel(self) -> None:
        if self.running and self.task is not None:
            self.task.cancel()
            asyncio.get_running_loop().call_later(self.grace_s, self.unwilling, self)


@dataclass(slots=True)
class Held:
    """Everything this process holds, by item id. An attempt leaves when its end is durable or its lease lost."""

    attempts: dict[int, Attempt] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    prefetched: dict[int, int] = field(default_factory=dict)
    """How many are left of each claim that was prefetched."""

    def add(self, attempt: Attempt) -> None:
        """A claimed item."""
        self.attempts[attempt.item.item_id] = attempt
        if attempt.claim_no:
            self.prefetched[attempt.claim_no] = self.prefetched.get(attempt.claim_no, 0) + 1

    def remove(self, attempt: Attempt) -> None:
        """Its end is durable, or somebody else's; its slot is free."""
        self.remove_all((attempt,))

    def remove_all(self, attempts: Iterable[Attempt]) -> None:
        """The same for many."""
        held, prefetched = self.attempts, self.prefetched
        for attempt in attempts:
            item_id = attempt.item.item_id
            if held.get(item_id) is attempt:
                del held[item_id]
                if attempt.claim_no:
                    prefetched[attempt.claim_no] -= 1
        self.changed.set()

    def end_all(self, why: Stop) -> None:
        """Stop every handler."""
        for attempt in list(self.attempts.values()):
            attempt.end(why)

    def end_items(self, item_ids: frozenset[int], why: Stop) -> None:
        """Stop these, as far as they are here."""
        for item_id in item_ids & self.attempts.keys():
            self.attempts[item_id].end(why)

    def pause_items(self, item_ids: frozenset[int]) -> None:
        """Their handlers are parked where they next can be."""
        for item_id in item_ids & self.attempts.keys():
            self.attempts[item_id].paused = True

    def clear(self) -> None:
        """All of it belongs to others."""
        self.attempts.clear()
        self.prefetched.clear()

    def __len__(self) -> int:
        return len(self.attempts)
