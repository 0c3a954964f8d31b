"""Bar 3: from `submit`'s return to the handler's first line, with an idle worker; what an idle worker asks."""

import random
import time
from collections.abc import Iterator

from bench import plot
from bench.app import app
from bench.bed import Bed
from bench.clients import Clients, insert_bare
from bench.measure import Figure, percentile
from bench.processes import until, workers

ISSUE = "3 pick-up"
POLL_S = 1.0
"""The default."""
IDLE_S = 10.0
PACE_S = 0.03
"""Between two submits: long enough for worker, server and cores to have gone to sleep."""
RESULTS = """
    SELECT r.task_id, (o.result #>> '{}')::bigint
      FROM agentos.task_records r JOIN agentos.outcomes o ON o.item_id = r.single
     WHERE r.task_id = ANY (%s)
"""
COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    with Clients(1) as rows:
        bare = _paced(rows, bed.size(200))
    yield Figure(ISSUE, "bare INSERT, committed, at this pace", percentile(bare, 50), "ms", min(bare), max(bare))
    with workers(bed, "heard"):
        _latencies(bed, "heard", 20, PACE_S)
        heard = _latencies(bed, "heard", bed.size(400), PACE_S)
        yield Figure(ISSUE, "listening, p50", percentile(heard, 50), "ms", min(heard), max(heard)).held_to(
            "value", "≤", 1.0
        )
        yield Figure(ISSUE, "listening, p99", percentile(heard, 99), "ms", min(heard), max(heard)).held_to(
            "value", "≤", 3.5
        )
        bed.plots["pickup"] = _histogram({"submit to handler": heard, "bare commit, same pace": bare})
        rate = _statements(bed, bed.size(3))
        yield Figure(ISSUE, "statements of an idle worker", rate, "/s").held_to("value", "≤", 2.0)
    with workers(bed, "unheard", "--no-listen"):
        polled = _latencies(bed, "unheard", bed.size(20), 0.8)
        yield Figure(ISSUE, "--no-listen, p50", percentile(polled, 50), "ms", min(polled), max(polled))
        longest = Figure(ISSUE, f"--no-listen, longest, poll {POLL_S:g} s", max(polled), "ms", min(polled), max(polled))
        yield longest.held_to("value", "≤", POLL_S * 1000 + 50)


def _latencies(bed: Bed, queue: str, times: int, pause_s: float) -> list[float]:
    """Milliseconds. Nobody looks until all are submitted: a look would disturb."""
    returned: dict[str, int] = {}
    for _ in range(times):
        task_id = app.submit("began", queue=queue).task_id
        returned[task_id] = time.monotonic_ns()
        time.sleep(pause_s * random.uniform(0.7, 1.3))
    ids = list(returned)
    until("all results", lambda: len(bed.rows(RESULTS, ids)) == times, pause_s=0.2)
    return [(began - returned[task_id]) / 1e6 for task_id, began in bed.rows(RESULTS, ids)]


def _histogram(taken: dict[str, list[float]]) -> str:
    points = {name: plot.counted(each, 0.25, 10.0) for name, each in taken.items()}
    return plot.lines("Pick-up with an idle worker", "milliseconds, 10 or more at the end", "how many", points)


def _paced(rows: Clients, times: int) -> list[float]:
    """Milliseconds of a commit by whoever has slept before it: the claim is one, and the wake-up another."""
    taken = []
    for _ in range(times):
        time.sleep(PACE_S * random.uniform(0.7, 1.3))
        taken.append(rows.median_ms(insert_bare, 1))
    return taken


def _statements(bed: Bed, windows: int) -> float:
    """Transactions per second of the whole database, in the quietest of so many windows: autovacuum's count too."""
    time.sleep(2)  # the statistics of what came before arrive late
    return min(_transactions(bed) for _ in range(windows))


def _transactions(bed: Bed) -> float:
    before, began = bed.rows(COMMITS)[0][0], time.monotonic()
    time.sleep(IDLE_S)
    return float((bed.rows(COMMITS)[0][0] - before - 1) / (time.monotonic() - began))
