"""`LeaseManager`: take, renew and end leases on a connection of the caller's."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from agentos.core.lease import Lease, current_lease, holding
from agentos.core.presence import package_version
from agentos.core.process import host, new_worker_id, process_identity
from agentos.core.worker_pool.work_item_lease import WorkItemLease
from agentos.store.calls import items, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.canonical import canonical_text
from agentos.store.errors import ContentSealed, InvalidInput, LeaseLost, WorkerDead
from agentos.store.run import Call, raise_mapped, run_call

T = TypeVar("T")

LEASE_S = 300.0
"""Seconds that a lease lasts unless asked otherwise."""
LONGEST_S = 30 * 86_400.0


class LeaseManager:
    """Leases under one identity: `worker_id` is a label for people, each instance has a random 64-bit id of its own.

    `conn`: a psycopg connection, best in autocommit as `get_db()` gives it. Inside a transaction of the caller's every
    call takes part in it, and counts when the caller commits. Not safe for threads: one manager and connection each.
    `kinds`: which kinds of items to take; default any.

    Between `acquire_lease` and `release_lease` the calling code runs under the lease: `CheckpointManager`, `ToolLedger`
    and `LLMOutputCache` write under its fence.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], worker_id: str = "worker", kinds: Sequence[str] | None = None
    ) -> None:
        """Raises InvalidInput: if `worker_id` or `kinds` is of a wrong type, or `kinds` is empty."""
        if not str(worker_id).strip():
            raise InvalidInput("worker_id is empty", hint='it is a label for people, such as "worker-123"')
        if kinds is not None and (isinstance(kinds, str) or not kinds):
            raise InvalidInput(f"kinds is {kinds!r}", hint='pass a list such as ["shell"], or nothing for any kind')
        self.worker_id = str(worker_id)
        self._conn = conn
        self._kinds = None if kinds is None else list(kinds)
        self._identity: int | None = None
        self._leases: dict[int, WorkItemLease] = {}

    def acquire_lease(self, lease_duration_seconds: float = LEASE_S) -> WorkItemLease | None:
        """Take one ready item; None: there is none of these kinds.

        Raises InvalidInput: if the duration is not above 0, or above 30 days. DatabaseUnavailable: if the connection
        broke; the item, if one was taken, is free again when the lease runs out.
        """
        lease_s = _duration(lease_duration_seconds)
        while (item := self._claim(lease_s)) is not None:
            lease = self._lease(item, lease_s)
            if item.paused and not item.cancelled and self._run(items.park_paused(lease.fence)):
                continue
            if not item.cancelled:
                self._leases[item.item_id] = lease
                current_lease.set(_as_current(lease))
                return lease
            error = canonical_text({"type": "TaskCancelled", "message": "the task was cancelled before it ran"})
            self._run(items.fail(lease.fence, error, terminal=True, status="cancelled"))
        return None

    def renew_lease(self, work_item_id: int, lease_duration_seconds: float = LEASE_S) -> datetime:
        """Put off the end of a lease: it lasts this long from now. Returns the new end.

        Raises LeaseLost: if it has ended, or is none of this manager's. InvalidInput: as `acquire_lease`.
        """
        lease = self._held(work_item_id)
        until = self._run(items.renew(lease.fence, _duration(lease_duration_seconds)))
        self._leases[work_item_id] = replace(lease, expires_at=until)
        return until

    def release_lease(self, work_item_id: int, success: bool, error: str | None = None, *, result: Any = None) -> str:
        """End a lease. `success`: the item is completed, with `result` (any JSON value). Otherwise a failure is
        charged, with `error` as its reason, and the item is tried again until its `max_attempts`.

        Returns what the item became: completed, scheduled or failed. Raises LeaseLost: if the lease has ended, or is
        none of this manager's; nothing is written then. InvalidValue, ValueTooLarge: if `result` cannot be stored; the
        lease goes on.
        """
        lease = self._held(work_item_id)
        fence = lease.fence
        if success:
            text = canonical_text(result, what="result")
            became = "completed"
            lost = bool(self._run(items.complete(fence.worker_id, [(fence.item_id, fence.token, text)])))
            if lost:  # the reply to an earlier call may have been lost: it was this very completion then
                lost = not self._run(items.ended_by([(fence.item_id, fence.token)]))
        else:
            told = {"type": "Failed", "message": _storable(error or "released without success")}
            became = self._ended(lease, items.fail(fence, canonical_text(told)))
            lost = False
        self._forget(lease)
        if lost:
            raise _lost(work_item_id)
        return became

    def hand_back(self, work_item_id: int) -> None:
        """Give an item back as it was: nothing is charged, somebody else may take it at once. Raises LeaseLost."""
        lease = self._held(work_item_id)
        released = self._run(items.release(lease.fence.worker_id, [(work_item_id, lease.fence.token)]))
        self._forget(lease)
        if work_item_id not in released:
            raise _lost(work_item_id)

    @contextmanager
    def holding(self, work_item_id: int) -> Iterator[WorkItemLease]:
        """Run a block under this lease: for another thread than the one that acquired it, or one lease of several."""
        lease = self._held(work_item_id)
        with holding(_as_current(lease)):
            yield lease

    def close(self) -> None:
        """Say goodbye. Leases that are still held are reclaimed at the next sweep. The connection stays open."""
        for lease in list(self._leases.values()):
            self._forget(lease)
        if self._identity is not None:
            self._run(workers.retire_worker(self._identity, "stopped"))
            self._identity = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self, lease_s: float) -> ClaimedItem | None:
        identity = self._identity or self._register(lease_s)
        try:
            return self._opened(self._run(items.claim_one(identity, 0, self._kinds, lease_s)))
        except WorkerDead:  # idle for longer than its last lease; whatever it held then has ended too
            return self._opened(self._run(items.claim_one(self._register(lease_s), 0, self._kinds, lease_s)))

    def _opened(self, item: ClaimedItem | None) -> ClaimedItem | None:
        """Raises ContentSealed: if this process cannot open its payload; the item is given back."""
        if item is not None and isinstance(item.payload, ContentSealed):
            self._run(items.release(self._identity or 0, [(item.item_id, item.token)]))
            raise item.payload
        return item

    def _register(self, ttl_s: float) -> int:
        identity = new_worker_id()
        serves = json.dumps({"queues": [], "kinds": self._kinds or [], "concurrency": 1})
        self._run(
            workers.register_worker(
                identity, label=self.worker_id, host=host(), pid=os.getpid(), process=process_identity(),
                version=package_version(), role="lease", ttl_s=ttl_s, serves=serves,
            )
        )  # fmt: skip
        self._identity = identity
        return identity

    def _lease(self, item: ClaimedItem, lease_s: float) -> WorkItemLease:
        assert self._identity is not None  # noqa: S101  only called with what it claimed
        return WorkItemLease(
            work_item_id=item.item_id,
            task_id=item.task_id,
            kind=item.kind,
            key=item.key,
            queue=item.queue,
            payload=item.payload,
            attempt=item.attempt,
            failures=item.failures,
            crashes=item.crashes,
            max_attempts=item.max_attempts,
            timeout_s=item.timeout_s,
            acquired_at=item.claimed_at,
            expires_at=item.claimed_at + timedelta(seconds=lease_s),
            fence=item.fence(self._identity),
        )

    def _held(self, work_item_id: int) -> WorkItemLease:
        lease = self._leases.get(work_item_id)
        if lease is None:
            raise _lost(work_item_id)
        return lease

    def _ended(self, lease: WorkItemLease, end: Call[T]) -> T:
        try:
            return self._run(end)
        except LeaseLost:
            self._forget(lease)
            raise

    def _forget(self, lease: WorkItemLease) -> None:
        self._leases.pop(lease.work_item_id, None)
        current = current_lease.get()
        if current is not None and current.fence == lease.fence:
            newest = next(reversed(self._leases.values()), None)
            current_lease.set(None if newest is None else _as_current(newest))

    def _run(self, call: Call[T]) -> T:
        # A savepoint inside the caller's transaction, so that a refusal does not end it; else a transaction of its own.
        try:
            with self._conn.transaction():
                return run_call(self._conn, call)
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            raise_mapped(exc)


def _as_current(lease: WorkItemLease) -> Lease:
    return Lease(lease.fence, lease.task_id, lease.attempt)


def _duration(seconds: object) -> float:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_S:
        return float(seconds)
    raise InvalidInput(
        f"lease_duration_seconds is {seconds!r}, not a number of seconds from above 0 to 30 days",
        hint="take a few times what one step of the work needs, and renew",
    )


def _lost(work_item_id: int) -> LeaseLost:
    return LeaseLost(
        f"this manager holds no lease on item {work_item_id}: it was released, lost, or taken by another manager",
        hint="stop working on this item; another worker resumes it from its last checkpoint",
    )


def _storable(text: str) -> str:
    return str(text)[:4000].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
