"""Completions, many in one commit: what gathers while one turn is under way goes with the next."""

from uuid import UUID

from agentos.core.logs import get_logger
from agentos.core.process import monotonic
from agentos.store.calls import items
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.worker.pace import FLUSH_ITEMS
from agentos.worker.running import Attempt, Held

log = get_logger(__name__)

BATCH = 500
BATCH_BYTES = 32 * 1024 * 1024
"""A message of a gigabyte is more than Postgres takes."""

Done = tuple[Attempt, str]


class Completions:
    """Successes that are not durable yet. Their items count as held until they are.

    `uncertain`: the reply to some that were sent was lost; only `flush` finds out what became of them. `gathering`: the
    pump need not be told before there are many.
    """

    def __init__(self, db: AsyncDatabase, held: Held) -> None:
        self._db = db
        self._held = held
        self._pending: list[Done] = []
        self._first_at = 0.0
        self.uncertain = False
        self.gathering = False
        self.added = 0

    def add(self, attempt: Attempt, result: str) -> None:
        """A handler returned; `result` is JSON text."""
        if not self._pending:
            self._first_at = monotonic()
        self._pending.append((attempt, result))
        self.added += 1
        if not self.gathering or len(self._pending) >= FLUSH_ITEMS:
            self._held.changed.set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def age_s(self) -> float:
        """How long the first of them has waited; 0 if there are none."""
        return monotonic() - self._first_at if self._pending else 0.0

    def forget(self) -> None:
        """A new worker id starts over: what is pending belongs to the old one."""
        for attempt, _ in self._pending:
            self._held.remove(attempt)
        self._pending.clear()
        self.uncertain = False

    async def flush(self) -> None:
        """Write what is pending. Raises whatever the database answers: nothing is lost, call again."""
        batch = self.batch()
        if not batch:
            return
        repeated, self.uncertain = self.uncertain, True
        fenced = await self._db.run(items.complete(batch[0][0].worker_id, as_sent(batch)))
        if fenced and repeated:  # the reply to an earlier flush was lost: it may have been this very completion
            tokens = [(a.item.item_id, a.item.token) for a, _ in batch if a.item.item_id in fenced]
            ended = await self._db.run(items.ended_by(tokens))
            fenced = fenced - ended
        self.settled(batch, fenced)

    def settled(self, batch: list[Done], fenced: frozenset[int]) -> None:
        """They are written, but for those fenced off."""
        self.uncertain = False
        del self._pending[: len(batch)]
        now = monotonic()
        if batch:
            counts.completions.observe(now - self._first_at)
        self._first_at = now
        for item_id in fenced:
            counts.fenced_writes.add()
            log.warning("completion refused: the lease is lost", item_id=item_id)
        self._held.remove_all(attempt for attempt, _ in batch)

    def batch(self) -> list[Done]:
        """The first of what is pending: of one worker id, and not too much for one message."""
        size = 0
        for n, (attempt, text) in enumerate(self._pending[:BATCH]):
            size += len(text)
            if n and (size > BATCH_BYTES or attempt.worker_id != self._pending[0][0].worker_id):
                return self._pending[:n]
        return self._pending[:BATCH]


def as_sent(batch: list[Done]) -> list[tuple[int, UUID, str]]:
    """What `complete` and `turn` take."""
    return [(attempt.item.item_id, attempt.item.token, text) for attempt, text in batch]
