"""What the leading coordinator knows of the whole pool when it is asked for metrics: what was counted, never a count.

Two statements that look at a few rows, at most once in `LOOK_S` seconds, however often it is scraped. Only the leader
tells them, so that a sum over coordinators is right.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from agentos.core.logs import get_logger
from agentos.core.metrics import names
from agentos.core.metrics.readings import Reading
from agentos.core.process import monotonic
from agentos.store.calls import coordinator, statistics, stuck
from agentos.store.calls.coordinator import Observations
from agentos.store.calls.statistics import LaneStatistics
from agentos.store.connect import AsyncDatabase
from agentos.store.errors import AgentOSError

log = get_logger(__name__)

LOOK_S = 5.0
LOOK_TIMEOUT_S = 2.0
STALE_S = 60.0
"""What is older is not told any more: a gap in a graph is better than a line that lies."""


@dataclass(slots=True)
class Observed:
    """`look` asks the database, `readings` tell what it said."""

    _lanes: tuple[LaneStatistics, ...] = ()
    _pool: Observations | None = None
    _partitions: tuple[tuple[str, int], ...] = ()
    _stuck: tuple[tuple[str, int], ...] = ()
    _looked_at: float = -STALE_S

    async def look(self, db: AsyncDatabase | None) -> None:
        """Ask, if the last answer is old. A database that does not answer leaves the last one, while that counts."""
        if db is None or monotonic() - self._looked_at < LOOK_S:
            return
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                self._lanes = await db.run(statistics.lane_statistics())
                self._pool = await db.run(coordinator.observations())
                self._partitions = tuple((await db.run(statistics.partitions_ahead())).items())
                self._stuck = tuple((await db.run(stuck.stuck_counts())).items())
        except (AgentOSError, TimeoutError) as error:
            log.debug("the pool could not be looked at", error=str(error) or type(error).__name__)
        else:
            self._looked_at = monotonic()

    def readings(self) -> Iterator[Reading]:
        """Of the pool; nothing if the last answer is too old."""
        if self._pool is None or monotonic() - self._looked_at > STALE_S:
            return
        for lane in self._lanes:
            yield from _of_lane(lane)
        if self._lanes:
            yield Reading(names.STATISTICS_AGE, max(lane.age_s for lane in self._lanes))
        for table, days in self._partitions:
            yield Reading(names.PARTITIONS_AHEAD, days, (table,))
        yield Reading(names.OLDEST_TRANSACTION, self._pool.oldest_transaction_s)
        yield Reading(names.HORIZON_AGE, self._pool.horizon_age)
        yield Reading(names.UNROUTABLE, self._pool.unroutable)
        for reason, tasks in self._stuck:
            yield Reading(names.STUCK, tasks, (reason,))
        yield Reading(names.OPEN_DOUBTS, self._pool.open_doubts)
        for state in ("alive", "draining", "late"):
            yield Reading(names.WORKERS, getattr(self._pool, state), (state,))


def _of_lane(lane: LaneStatistics) -> Iterator[Reading]:
    labels = (lane.queue, lane.kind, str(lane.version))
    for place in ("ready", "held", "scheduled", "waiting"):
        yield Reading(names.ITEMS, getattr(lane, place), (*labels, place))
    yield Reading(names.OLDEST_READY, lane.oldest_ready_s or 0.0, labels)
    for outcome in ("completed", "failed", "quarantined", "cancelled", "skipped"):
        yield Reading(names.ENDED_ITEMS, getattr(lane, outcome), (*labels, outcome))
