"""What a coordinator does. Every duty is safe with any number of coordinators doing it at once."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentos.coordinator import cron, stuck
from agentos.coordinator.gone import Gone
from agentos.core.logs import get_logger
from agentos.core.retention import Policy, Retention
from agentos.store.calls import blobs, coordinator, statistics, tasks, waits, workers
from agentos.store.calls import cron as cron_calls
from agentos.store.calls.workers import Reclaimed
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.store.errors import DatabaseBusy
from agentos.store.run import AsyncRunner
from agentos.store.settings import Settings

log = get_logger(__name__)

RECLAIM_LIMIT = 1000
PROMOTE_LIMIT = 5000
BLOCKED_WAIT_S = 0.5
STATISTICS_SHARE = 10.0
"""A count that takes long is made less often: at most this share of the time, one part in so many, goes into it."""
RETENTION_ROUND_S = 5.0
RETENTION_REST_S = 1.0
"""While more is due than one round does."""
CRON_SOONEST_S = 0.2
SOONEST_S = 0.01
"""A due item that could not be promoted (somebody locks it) is asked for again after this, not at once."""


@dataclass(frozen=True, slots=True)
class Duty:
    """`run` does it once and returns the seconds until the next time. `slow`: it may take seconds, and shares no
    connection with those that must not wait.
    """

    name: str
    run: Callable[[AsyncDatabase], Awaitable[float]]
    slow: bool = False


def duties(settings: Settings) -> tuple[Duty, ...]:
    """All duties, fresh."""
    reclaim, repair, retention = Reclaim(), Repair(), Retention(Policy.of(settings))

    async def _reclaim(db: AsyncDatabase) -> float:
        await reclaim.sweep(db)
        return settings.sweep_s

    async def _promote(db: AsyncDatabase) -> float:
        await promote(db)
        return await _until_due(db, settings.promote_s)

    async def _deadlines(db: AsyncDatabase) -> float:
        await expire(db)
        return await _until_due(db, settings.deadlines_s)

    async def _cron(db: AsyncDatabase) -> float:
        await cron.fire(db)
        due_s = await db.run(cron_calls.next_cron_s())
        return settings.cron_s if due_s is None else min(settings.cron_s, max(due_s, CRON_SOONEST_S))

    async def _repair(db: AsyncDatabase) -> float:
        await repair.slice(db)
        return settings.repair_s

    async def _tidy(db: AsyncDatabase) -> float:
        await tidy(db, settings.retention_blobs_s)
        return settings.tidy_s

    async def _statistics(db: AsyncDatabase) -> float:
        began = time.monotonic()
        await db.run(statistics.take_statistics(settings.statistics_s))
        return max(settings.statistics_s, STATISTICS_SHARE * (time.monotonic() - began))

    async def _stuck(db: AsyncDatabase) -> float:
        await stuck.look(db, settings)
        return settings.stuck_s

    async def _partitions(db: AsyncDatabase) -> float:
        await ensure_partitions(db)
        return settings.partitions_s

    async def _retention(db: AsyncDatabase) -> float:
        did = await retention.round(db, RETENTION_ROUND_S)
        return settings.retention_s if did.done else min(settings.retention_s, RETENTION_REST_S)

    look = () if settings.gone_s == 0 else (Duty("gone", Gone(settings.gone_s, reclaim.sweep).look),)
    return (
        *look, Duty("reclaim", _reclaim), Duty("promote", _promote), Duty("deadlines", _deadlines), Duty("cron", _cron),
        Duty("repair", _repair, slow=True), Duty("tidy", _tidy, slow=True), Duty("statistics", _statistics, slow=True),
        Duty("stuck", _stuck, slow=True), Duty("partitions", _partitions, slow=True),
        Duty("retention", _retention, slow=True),
    )  # fmt: skip


async def _until_due(db: AsyncDatabase, longest_s: float) -> float:
    due_s = await db.run(coordinator.next_due_s())
    return longest_s if due_s is None else min(longest_s, max(due_s, SOONEST_S))


@dataclass(slots=True)
class Reclaim:
    """Takes leases back from workers that stopped beating. Remembers which ones the last sweep had to skip."""

    skipped: frozenset[int] = field(default_factory=frozenset)

    async def sweep(self, db: AsyncRunner) -> list[Reclaimed]:
        """One sweep: all that can be taken, then what two sweeps in a row had to skip."""
        taken: list[Reclaimed] = []
        while batch := await db.run(workers.reclaim(RECLAIM_LIMIT)):
            taken += batch
            if len(batch) < RECLAIM_LIMIT:
                break
        left = frozenset(lease.item_id for lease in await db.run(workers.blocked_leases()))
        if twice := left & self.skipped:
            taken += await _insist(db, twice)
        self.skipped = left
        if taken:
            _tell(taken)
            await _wake_for(db, taken)
        return taken


async def _insist(db: AsyncRunner, item_ids: frozenset[int]) -> tuple[Reclaimed, ...]:
    """Wait for the locks instead of skipping them; when that fails, say who keeps them."""
    try:
        return await db.run(coordinator.reclaim_blocked(sorted(item_ids), BLOCKED_WAIT_S, limit=RECLAIM_LIMIT))
    except DatabaseBusy:
        for lease in await db.run(workers.blocked_leases()):
            if lease.item_id in item_ids:
                log.warning(
                    "a lease without a living worker cannot be taken back: its row is locked",
                    item_id=lease.item_id, worker_id=lease.worker_id, blocker_pid=lease.pid, blocker_query=lease.query,
                    fix=f"SELECT pg_terminate_backend({lease.pid})" if lease.pid else "look into pg_locks",
                )  # fmt: skip
        return ()


def _tell(taken: list[Reclaimed]) -> None:
    log.info(
        "leases reclaimed", count=len(taken), item_ids=[lease.item_id for lease in taken[:20]],
        worker_ids=sorted({lease.worker_id for lease in taken}),
    )  # fmt: skip
    for lease in taken:
        counts.reclaims.add("quarantined" if lease.quarantined else "crashed" if lease.crashes else "ready")
        if lease.quarantined:
            log.warning("item quarantined", task_id=lease.task_id, item_id=lease.item_id, crashes=lease.crashes)


async def _wake_for(db: AsyncRunner, taken: list[Reclaimed]) -> None:
    if ready := [lease.item_id for lease in taken if not lease.quarantined]:
        queues = await db.run(coordinator.queues_of(ready))
        await db.run(workers.wake(queues))


async def promote(db: AsyncRunner) -> tuple[str, ...]:
    """Ready everything that is due. Returns the queues that got some."""
    queues: set[str] = set()
    while batch := await db.run(workers.promote(PROMOTE_LIMIT)):
        queues.update(batch)
        await db.run(workers.wake(batch))  # a statement of its own: NOTIFY takes a global lock at commit
    return tuple(sorted(queues))


async def expire(db: AsyncRunner) -> int:
    """End what has passed its deadline. Returns how many tasks."""
    if expired := await db.run(tasks.expire_tasks()):
        log.warning("tasks failed at their deadline", count=expired)
    return expired


@dataclass(slots=True)
class Repair:
    """Puts tasks right that a restore or a hand edit left behind, some at a time; remembers where it was."""

    at: coordinator.Slice = field(default_factory=coordinator.Slice)

    async def slice(self, db: AsyncDatabase) -> int:
        """The next slice. Returns how many were put right."""
        self.at = await db.run(coordinator.repair_slice(self.at))
        _tell_repaired(self.at.repaired)
        return self.at.repaired


async def repair(db: AsyncRunner) -> int:
    """All of them at once. Returns how many."""
    repaired = await db.run(workers.repair())
    _tell_repaired(repaired)
    return repaired


def _tell_repaired(count: int) -> None:
    if count:
        log.warning("tasks repaired", count=count)


async def tidy(db: AsyncRunner, blobs_s: float | None) -> None:
    """Forget workers that are long gone and parts nobody refers to since `blobs_s` (None: they stay); end waits that
    are over and that nobody ended."""
    await db.run(workers.forget_workers())
    if blobs_s is not None:
        await db.run(blobs.collect_blobs(blobs_s))
    if woken := await db.run(waits.repair_waits()):
        log.warning("waits were over and nobody had said so", item_ids=woken[:20])
        await db.run(workers.wake(await db.run(coordinator.queues_of(woken))))


async def ensure_partitions(db: AsyncRunner) -> int:
    """Make the day partitions of the next week. Returns how many were new."""
    if made := await db.run(workers.ensure_partitions()):
        log.info("partitions made", count=made)
    return made
