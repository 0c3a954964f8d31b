"""What a worker can read off itself when it is asked for its metrics."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentos.core.metrics import names
from agentos.core.metrics.readings import Reading, of_counter, of_histograms, process_readings
from agentos.store.counts import counts

if TYPE_CHECKING:
    from agentos.worker.process import Worker


def worker_readings(worker: "Worker") -> Iterable[Reading]:
    """Now. Nothing here asks the database."""
    vitals, heartbeat = worker.vitals, worker.vitals.heartbeat
    role = "solo" if worker.options.solo else "worker"
    yield from process_readings(role, connected=vitals.beating, loop_lag_s=vitals.lag_ms() / 1000)
    skew_s = heartbeat.clock_skew_s if heartbeat else 0.0
    yield Reading(names.SLOTS, worker.options.concurrency)
    yield Reading(names.RUNNING, worker.slots.busy)
    yield Reading(names.HELD, len(worker.held))
    yield Reading(names.LEASE_AGE, _oldest_s(worker, skew_s))
    yield Reading(names.BEAT_AGE, heartbeat.age_s if heartbeat else 0.0)
    yield Reading(names.CLOCK_SKEW, skew_s)
    yield from of_counter(names.DEATHS, counts.deaths)
    yield Reading(names.CLAIMED, counts.claimed_items)
    yield Reading(names.HANDED, counts.handed_items)
    yield Reading(names.CLAIM_SECONDS, counts.claims)
    yield Reading(names.COMPLETE_SECONDS, counts.completions)
    yield Reading(names.CHECKPOINT_SECONDS, counts.checkpoints)
    for labels, histogram in list(counts.attempts.by_labels.items()):
        yield Reading(names.ATTEMPTS, sum(histogram.counts), labels)
    yield from of_histograms(names.ATTEMPT_SECONDS, counts.attempts)
    yield from of_counter(names.TOOL_CALLS, counts.tool_calls)
    yield from of_counter(names.LLM_CALLS, counts.llm_calls)
    yield from of_counter(names.LLM_TOKENS, counts.llm_tokens)


def _oldest_s(worker: "Worker", skew_s: float) -> float:
    """Leases are kept in the order in which they were claimed."""
    oldest = next(iter(worker.held.attempts.values()), None)
    return 0.0 if oldest is None else max(0.0, time.time() + skew_s - oldest.item.claimed_us / 1e6)
