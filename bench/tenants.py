"""What 1,000 tenants cost a drain: the same items in one lane, and in a thousand, by workers of the same kind."""

from collections.abc import Iterator

from agentos.core.app import App
from agentos.core.task_id import new_task_ids
from agentos.store.calls import flow, tasks
from agentos.store.connect import Database
from bench import raw
from bench.bed import Bed
from bench.drain import ENDED, RATE, WARM
from bench.measure import Figure, in_turns
from bench.processes import until, workers

ISSUE = "5 tenants"
MANY = 1000


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    each = max(5, bed.size(20))
    with workers(bed, "tenant", "--concurrency", "8"), workers(bed, "tenants", "--concurrency", "8"):
        one, many = in_turns(ISSUE, "items/s", bed.rounds, {
            "one tenant": lambda: _drain(bed, "tenant", 1, MANY * each),
            f"{MANY:,} tenants": lambda: _drain(bed, "tenants", MANY, each),
        }).values()  # fmt: skip
    yield one.figure()
    yield many.figure(one).held_to("ratio", "≥", 0.8)


def _drain(bed: Bed, queue: str, tenants: int, each: int) -> float:
    """Everything is there before it begins; from the first tenth's end to the last, by the times the engine wrote."""
    db = Database.default()
    db.run(flow.pause_queue(queue))
    items = [
        item for tenant in range(tenants)
        for item in db.run(tasks.submit_many(
            new_task_ids(each), "noop", "noop", [raw.PAYLOAD] * each, queue=queue, tenant=f"tenant-{tenant}"
        ))
    ]  # fmt: skip
    db.run(flow.resume_queue(queue))
    App().wake(queue)
    until("all outcomes", lambda: bed.rows(ENDED, items)[0][0] == len(items), timeout_s=120, pause_s=0.2)
    seconds, counted = bed.rows(RATE, items, int(len(items) * WARM))[0]
    return float(counted / seconds)
