"""`--once`: every duty once, and what it did."""

from dataclasses import dataclass, replace

from agentos.coordinator import cron, stuck
from agentos.coordinator.duties import RETENTION_ROUND_S, Reclaim, ensure_partitions, expire, promote, repair, tidy
from agentos.core.retention import Policy, Retention
from agentos.store.calls import statistics
from agentos.store.connect import AsyncDatabase, open_target
from agentos.store.run import AsyncRunner
from agentos.store.settings import Settings


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did. `queues`: those that got due items."""

    reclaimed: int
    quarantined: int
    queues: tuple[str, ...]
    repaired: int
    partitions: int
    retired: int = 0

    def __str__(self) -> str:
        return (
            f"reclaimed {self.reclaimed} leases, {self.quarantined} of them quarantined; "
            f"due items readied in {', '.join(self.queues) or 'no queue'}; "
            f"repaired {self.repaired} tasks; made {self.partitions} partitions; "
            f"retired {self.retired} tasks"
        )


async def sweep_once(settings: Settings, *, may_migrate: bool = False) -> Swept:
    """Do every duty once, whoever leads. Raises DatabaseUnavailable, SchemaMissing and their neighbours."""
    db = await AsyncDatabase.open(open_target(settings, may_migrate=may_migrate).dsn, max_size=1)
    try:
        swept = await sweep(db, settings)
        did = await Retention(Policy.of(settings)).round(db, RETENTION_ROUND_S)
        return replace(swept, retired=did.retired)
    finally:
        await db.close()


async def sweep(db: AsyncRunner, settings: Settings) -> Swept:
    """The same on a connection that is open, but for retention, which needs one more."""
    taken = await Reclaim().sweep(db)
    await expire(db)
    await cron.fire(db)
    await tidy(db, settings.retention_blobs_s)
    swept = Swept(
        reclaimed=len(taken), quarantined=sum(lease.quarantined for lease in taken), queues=await promote(db),
        repaired=await repair(db), partitions=await ensure_partitions(db),
    )  # fmt: skip
    await db.run(statistics.take_statistics(0))
    await stuck.look(db, settings)
    return swept
