"""What the coordinator counts, and what it counted."""

from dataclasses import dataclass
from datetime import datetime

from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """One queue, kind and version. `ready_exact`, `parked_exact` (held, scheduled, waiting) False: estimated. The
    totals `completed` to `skipped` only grow; `completed_5m`, `failed_5m`: of the last five whole minutes; `age_s`: of
    the counts.
    """

    queue: str
    kind: str
    version: int
    ready: int
    ready_exact: bool
    held: int
    scheduled: int
    waiting: int
    parked_exact: bool
    oldest_ready_s: float | None
    completed: int
    failed: int
    quarantined: int
    cancelled: int
    skipped: int
    completed_5m: int
    failed_5m: int
    sampled_at: datetime
    age_s: float


def take_statistics(interval_s: float) -> Call[int | None]:
    """Count. Returns how many rows were written; None: another did within half of `interval_s` seconds, or is at it."""
    return Call("SELECT agentos.take_statistics($1::float8) AS n", (float(interval_s),), lambda rows: rows[0]["n"])


def lane_statistics() -> Call[tuple[LaneStatistics, ...]]:
    """What was counted last, by queue, kind and version; nothing before the first count."""
    return Call(
        "SELECT * FROM agentos.statistics()", (), lambda rows: tuple(LaneStatistics(**dict(row)) for row in rows)
    )


def backlog(queue: str, max_age_s: float = 120.0) -> Call[float]:
    """Items of a queue that are ready or held. Raises StatisticsStale: if nobody counted within `max_age_s` seconds."""
    return Call(
        "SELECT agentos.backlog($1::text, $2::float8) AS n", (queue, float(max_age_s)), lambda rows: rows[0]["n"]
    )


def partitions_ahead() -> Call[dict[str, int]]:
    """Whole days after today for which each partitioned table is ready, 7 when all is well."""
    return Call(
        "SELECT * FROM agentos.partitions_ahead()",
        (),
        lambda rows: {row["parent"]: row["days_ahead"] for row in rows},
    )
