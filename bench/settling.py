"""What finishing costs per item: one-item tasks beside the items of one task, whose head every flush locks (ADR
0002)."""

import json
import time
from collections.abc import Iterator
from uuid import uuid4

from agentos.core.process import host, new_worker_id, process_identity
from agentos.core.task_id import new_task_id, new_task_ids
from agentos.store.calls import items, tasks, workers
from agentos.store.connect import Database
from bench.bed import Bed
from bench.measure import Figure, in_turns

ISSUE = "settling"
BATCH = 100


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    db = Database.default()
    single, many = in_turns(ISSUE, "us/item", bed.rounds, {
        "claim + complete, one-item tasks": lambda: _drain(db, bed.size(4_000), one_task=False),
        "claim + complete, items of one task": lambda: _drain(db, bed.size(4_000), one_task=True),
    }).values()  # fmt: skip
    yield single.figure()
    yield many.figure(single)


def _drain(db: Database, count: int, *, one_task: bool) -> float:
    """Microseconds per item, batches of 100, one connection."""
    queue = f"settling-{uuid4().hex}"
    if one_task:
        plan = [{"key": f"k{n}", "kind": "noop", "payload": {}} for n in range(count)]
        db.run(tasks.create_task(new_task_id(), "bench", queue=queue, items=json.dumps(plan)))
    else:
        db.run(tasks.submit_many(new_task_ids(count), "noop", "bench", ["{}"] * count, queue=queue))
    worker_id = new_worker_id()
    db.run(
        workers.register_worker(
            worker_id, label="bench", host=host(), pid=1, process=process_identity(), version="0", role="runner",
            ttl_s=600, serves="{}",
        )
    )  # fmt: skip
    lanes = db.run(workers.lanes_of([queue], ["noop"]))
    started, done = time.perf_counter(), 0
    while done < count:
        claimed = db.run(items.claim(worker_id, 0, lanes, BATCH)).items
        fenced = db.run(items.complete(worker_id, [(item.item_id, item.token, "null") for item in claimed]))
        done += len(claimed) - len(fenced)
    taken = (time.perf_counter() - started) * 1e6 / count
    db.run(workers.retire_worker(worker_id, "stopped"))
    return taken
