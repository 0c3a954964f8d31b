"""Every metric: its name, type, labels and meaning. docs/metrics.md lists the same; a test compares.

Names are those of the logs and tables: task, item, attempt, lease, duty. Times are seconds.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` without what the type adds: `_total` of a counter; `_bucket`, `_sum`, `_count` of a histogram."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What can be asked for."""
        match self.kind:
            case "counter":
                return (f"{self.name}_total",)
            case "histogram":
                return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"agentos_{name}", "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"agentos_{name}", "counter", meaning, labels)


def _histogram(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"agentos_{name}", "histogram", meaning, labels)


# -- of every process
BUILD_INFO = _gauge("build_info", "1; the labels say what runs", "version", "python", "role")
DATABASE_CONNECTED = _gauge("database_connected", "1: the database answered when it was last asked; 0: it did not")
DATABASE_OUTAGES = _counter("database_outages", "times that the database was found away, or refused", "doing")
LOOP_LAG = _gauge("loop_lag_seconds", "how late the event loop is now")
FENCED_WRITES = _counter("fenced_writes", "writes that the fence refused: the lease was another worker's by then")

PROCESS = (BUILD_INFO, DATABASE_CONNECTED, DATABASE_OUTAGES, LOOP_LAG, FENCED_WRITES)

# -- of a worker
SLOTS = _gauge("slots", "handlers that it runs at the same time, at most")
RUNNING = _gauge("running_attempts", "attempts in slots now")
HELD = _gauge("held_leases", "leases held: running, prefetched, and ended but not yet durable")
LEASE_AGE = _gauge("lease_age_seconds", "age of the oldest lease held; 0: none")
BEAT_AGE = _gauge("beat_age_seconds", "since the last beat that succeeded was sent; at the TTL its leases are lost")
CLOCK_SKEW = _gauge("clock_skew_seconds", "clock of the database minus that of this host, at the last beat")
DEATHS = _counter("declared_dead", "times that it was declared dead and started over under a new worker id")
CLAIMED = _counter("claimed_items", "items claimed")
HANDED = _counter("handed_items", "items of those that their submit had handed to this worker")
CLAIM_SECONDS = _histogram("claim_seconds", "round trip of a claim, with the completions that went along")
COMPLETE_SECONDS = _histogram("complete_seconds", "from the first handler's end to the commit that made it durable")
CHECKPOINT_SECONDS = _histogram("checkpoint_seconds", "commit of a checkpoint")
ATTEMPTS = _counter(
    "attempts",
    "attempts that ended: completed, retried, failed, cancelled, released, parked, put_off or lost",
    "kind", "outcome",
)  # fmt: skip
ATTEMPT_SECONDS = _histogram("attempt_seconds", "from an attempt's start to its end", "kind", "outcome")
TOOL_CALLS = _counter("tool_calls", "tool calls: executed, replayed, repaired, failed or in_doubt", "tool", "outcome")
LLM_CALLS = _counter("llm_calls", "model calls: paid, or saved by the cache", "model", "outcome")
LLM_TOKENS = _counter("llm_tokens", "tokens of model calls, of prompt and output: paid, or saved", "model", "outcome")

WORKER = (
    SLOTS, RUNNING, HELD, LEASE_AGE, BEAT_AGE, CLOCK_SKEW, DEATHS, CLAIMED, HANDED, CLAIM_SECONDS,
    COMPLETE_SECONDS, CHECKPOINT_SECONDS, ATTEMPTS, ATTEMPT_SECONDS, TOOL_CALLS, LLM_CALLS, LLM_TOKENS,
)  # fmt: skip

# -- of a coordinator
LEADING = _gauge("leading", "1: this coordinator leads; 0: it waits to")
DUTY_SECONDS = _histogram("duty_seconds", "one run of a duty: done or failed", "duty", "outcome")
DUTY_AGE = _gauge("duty_age_seconds", "since the duty was last done by this coordinator, while it leads", "duty")
RECLAIMS = _counter(
    "reclaims", "leases taken back: ready again, crashed (runs alone from now on) or quarantined", "outcome"
)
RETIRED = _counter(
    "retired", "what was kept no longer: task, trimmed (a task's records before it) or partition", "what"
)

COORDINATOR = (LEADING, DUTY_SECONDS, DUTY_AGE, RECLAIMS, RETIRED)

# -- of the pool, by the coordinator that leads
ITEMS = _gauge(
    "items", "items by where they are: ready, held, scheduled or waiting", "queue", "kind", "version", "place"
)
OLDEST_READY = _gauge(
    "oldest_ready_seconds", "age of the item that is claimed next; 0: none is ready", "queue", "kind", "version"
)
ENDED_ITEMS = _counter(
    "ended_items",
    "items that ended: completed, failed, quarantined, cancelled or skipped",
    "queue", "kind", "version", "outcome",
)  # fmt: skip
STATISTICS_AGE = _gauge("statistics_age_seconds", "since the three above were counted")
WORKERS = _gauge("workers", "workers that are alive, draining, or late: no beat within their TTL", "state")
UNROUTABLE = _gauge("unroutable_lanes", "queues, kinds and versions with ready items that no living worker runs")
STUCK = _gauge(
    "stuck_tasks",
    "tasks found standing still by two looks: unroutable, or silent: an attempt that records nothing; at most 1000",
    "reason",
)
OPEN_DOUBTS = _gauge("open_doubts", "calls in doubt, and changed programs, that wait for a person; at most 1000")
PARTITIONS_AHEAD = _gauge("partitions_ahead_days", "whole days ahead for which there are partitions", "table")
OLDEST_TRANSACTION = _gauge("oldest_transaction_seconds", "age of the oldest open transaction; 0: none")
HORIZON_AGE = _gauge("horizon_age_transactions", "how far behind the oldest snapshot is: dead rows stay so long")

POOL = (
    ITEMS, OLDEST_READY, ENDED_ITEMS, STATISTICS_AGE, WORKERS, UNROUTABLE, STUCK, OPEN_DOUBTS, PARTITIONS_AHEAD,
    OLDEST_TRANSACTION, HORIZON_AGE,
)  # fmt: skip

METRICS = (*PROCESS, *WORKER, *COORDINATOR, *POOL)
