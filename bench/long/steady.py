"""Bar 7: a worker and a coordinator at half load: do tables plateau, what does an item cost in WAL and round trips."""

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.app import app
from bench.bed import Bed
from bench.measure import Bar, Figure
from bench.processes import end, start, until, workers

ISSUE = "7 steady"
PROBE = 5_000
BATCH_S = 0.5
SAMPLE = """
    SELECT (pg_total_relation_size('agentos.lease_ready') + pg_total_relation_size('agentos.lease_held')
            + pg_total_relation_size('agentos.workers'))::float8 / 1048576,
           (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
             WHERE schemaname = 'agentos' AND relname IN ('lease_ready', 'lease_held', 'workers')),
           (pg_current_wal_lsn() - '0/0')::float8,
           (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
           (SELECT count(*) FROM agentos.outcomes)
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment: lease tables with their indexes, their dead rows, WAL bytes, transactions and outcomes so far."""

    minute: float
    mib: float
    dead: int
    wal: float
    commits: int
    items: int


def observe(bed: Bed, minutes: float, stop: threading.Event) -> list[Sample]:
    """Find out what full load is, then half of it for so many minutes or until told to stop."""
    coordinator = start("agentos-coordinator")
    try:
        with workers(bed, "steady", "--concurrency", "8"):
            rate = _full(bed)
            samples, began, sent = [_sample(bed, 0.0)], time.monotonic(), 0
            every = max(1.0, minutes * 60 / 60)
            while not stop.is_set() and (passed := time.monotonic() - began) < minutes * 60:
                due = int(passed * rate / 2) - sent
                if due > 0:
                    app.submit_many("noop", [{"n": 1}] * due, queue="steady")
                    sent += due
                if passed > samples[-1].minute * 60 + every:
                    samples.append(_sample(bed, passed / 60))
                    print(f"steady: {samples[-1]}", file=sys.stderr, flush=True)
                stop.wait(BATCH_S)
            until("the rest", lambda: not bed.rows("SELECT 1 FROM agentos.lease_ready LIMIT 1"), timeout_s=60)
            samples.append(_sample(bed, (time.monotonic() - began) / 60))
    finally:
        end(coordinator)
    return samples


def _full(bed: Bed) -> float:
    began, count = time.monotonic(), bed.size(PROBE)
    app.submit_many("noop", [{"n": 1}] * count, queue="steady")
    until("full load", lambda: bed.rows(SAMPLE)[0][4] >= count, timeout_s=120, pause_s=0.1)
    return count / (time.monotonic() - began)


def _sample(bed: Bed, minute: float) -> Sample:
    return Sample(minute, *bed.rows(SAMPLE)[0])


def figures(samples: list[Sample]) -> Iterator[Figure]:
    """The second half beside the first, and what an item cost."""
    middle = len(samples) // 2
    first, second = samples[:middle] or samples, samples[middle:]
    was, became = max(s.mib for s in first), max(s.mib for s in second)
    yield Figure(ISSUE, "lease tables, largest of the second half", became, "MiB", was, became, "of the first",
                 became / was, Bar("ratio", "≤", 1.1))  # fmt: skip
    dead = [float(s.dead) for s in second]
    yield Figure(
        ISSUE, "dead rows in them", statistics.median(dead), "", min(dead), max(dead), bar=Bar("value", "≤", 50_000)
    )
    done = samples[-1].items - samples[0].items
    if not done:
        return
    seconds = (samples[-1].minute - samples[0].minute) * 60
    yield Figure(ISSUE, "items", done / seconds, "/s")
    yield Figure(ISSUE, "WAL per item, submit and events included", (samples[-1].wal - samples[0].wal) / done, "bytes",
                 bar=Bar("value", "≤", 1_200))  # fmt: skip
    commits = samples[-1].commits - samples[0].commits
    yield Figure(ISSUE, "transactions per item at half load", commits / done, "")
