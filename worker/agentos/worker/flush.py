"""Completions, many in one commit: what gathers while one flush is under way goes with the next."""

from agentos.core.logs import get_logger
from agentos.store.calls import items
from agentos.store.connect import AsyncDatabase
from agentos.worker.running import Attempt, Held

log = get_logger(__name__)

BATCH = 200
BATCH_BYTES = 32 * 1024 * 1024
"""A message of a gigabyte is more than Postgres takes."""


class Completions:
    """Successes that are not durable yet. Their items count as held until they are."""

    def __init__(self, db: AsyncDatabase, held: Held) -> None:
        self._db = db
        self._held = held
        self._pending: list[tuple[Attempt, str]] = []
        self._uncertain = False

    def add(self, attempt: Attempt, result: str) -> None:
        """A handler returned; `result` is JSON text."""
        self._pending.append((attempt, result))
        self._held.changed.set()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def forget(self) -> None:
        """A new worker id starts over: what is pending belongs to the old one."""
        for attempt, _ in self._pending:
            self._held.remove(attempt)
        self._pending.clear()
        self._uncertain = False

    async def flush(self) -> None:
        """Write what is pending. Raises whatever the database answers: nothing is lost, call again."""
        batch = self._batch()
        if not batch:
            return
        repeated, self._uncertain = self._uncertain, True
        fenced = await self._db.run(
            items.complete(batch[0][0].worker_id, [(a.item.item_id, a.item.token, text) for a, text in batch])
        )
        if fenced and repeated:  # the reply to an earlier flush was lost: it may have been this very completion
            tokens = [(a.item.item_id, a.item.token) for a, _ in batch if a.item.item_id in fenced]
            ended = await self._db.run(items.ended_by(tokens))
            fenced = fenced - ended
        self._uncertain = False
        del self._pending[: len(batch)]
        for attempt, _ in batch:
            if attempt.item.item_id in fenced:
                log.warning("completion refused: the lease is lost", item_id=attempt.item.item_id)
            self._held.remove(attempt)

    def _batch(self) -> list[tuple[Attempt, str]]:
        """The first of what is pending: of one worker id, and not too much for one message."""
        size = 0
        for n, (attempt, text) in enumerate(self._pending[:BATCH]):
            size += len(text)
            if n and (size > BATCH_BYTES or attempt.worker_id != self._pending[0][0].worker_id):
                return self._pending[:n]
        return self._pending[:BATCH]
