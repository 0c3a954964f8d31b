"""Bar 9: what an idle worker holds, and how long it takes to start."""

import statistics
import time
from collections.abc import Iterator
from datetime import datetime

import psutil

from bench.app import app
from bench.bed import Bed
from bench.measure import Figure
from bench.processes import end, start, until, workers

ISSUE = "9 footprint"
SETTLED_S = 3.0
CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
       AND pid <> pg_backend_pid() AND application_name LIKE 'agentos%%' AND NOT pid = ANY (%s)
"""
HERE = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
CLAIMED = """
    SELECT o.claimed_at FROM agentos.task_records r JOIN agentos.outcomes o ON o.item_id = r.single WHERE r.task_id = %s
"""


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    before = bed.rows(HERE)[0][0] or []
    with workers(bed, "idle", "--concurrency", "8") as (process,):
        time.sleep(SETTLED_S)
        held = psutil.Process(process.pid)
        children = held.children(recursive=True)
        mib = held.memory_info().rss / 2**20
        connections = bed.rows(CONNECTIONS, before)[0][0]
        yield Figure(ISSUE, "idle worker, resident", mib, "MiB").held_to("value", "≤", 60)
        yield Figure(ISSUE, "its children, resident", sum(c.memory_info().rss for c in children) / 2**20, "MiB")
        yield Figure(ISSUE, "its connections", connections, "").held_to("value", "≤", 4)
    first = [_to_first_claim(bed) for _ in range(bed.rounds)]
    yield _seconds("agentos-worker started to first claim", first).held_to("value", "≤", 1.0)
    helped = [_help() for _ in range(bed.rounds)]
    yield _seconds("agentos --help", helped).held_to("value", "≤", 0.5)


def _seconds(name: str, taken: list[float]) -> Figure:
    return Figure(ISSUE, name, statistics.median(taken), "s", min(taken), max(taken))


def _to_first_claim(bed: Bed) -> float:
    """From the command's start to the time the engine wrote for the claim, both by this machine's clock."""
    task_id = app.submit("noop", queue="starting").task_id
    began = time.time()
    process = start("agentos-worker", "--app", "bench.app:app", "--queue", "starting")
    try:
        until("the first claim", lambda: bed.rows(CLAIMED, task_id))
    finally:
        end(process)
    claimed: datetime = bed.rows(CLAIMED, task_id)[0][0]
    return claimed.timestamp() - began


def _help() -> float:
    began = time.perf_counter()
    with start("agentos", "--help", stdout=-1) as process:
        process.communicate()
    return time.perf_counter() - began
