"""What finishing costs per item: one-item tasks beside the items of one task, whose head every flush locks (ADR
0002)."""

import json
import time
from collections.abc import Iterator
from uuid import uuid4

from agentos.core.process import host, new_worker_id, process_identity
from agentos.store.calls import items, tasks, workers
from agentos.store.connect import Database
from bench.measure import Figure, interleaved

ITEMS = 2000
BATCH = 100
ROUNDS = 5
BASELINE = "claim + complete, one-item tasks, per item"


def run() -> Iterator[Figure]:
    """The figures of this file."""
    db = Database.default()
    single, many = interleaved(ROUNDS, [lambda: _drain(db, one_task=False), lambda: _drain(db, one_task=True)])
    yield Figure(BASELINE, single, single)
    yield Figure("claim + complete, items of one task, per item", many, many, BASELINE)


def _drain(db: Database, *, one_task: bool) -> float:
    """Milliseconds per item, batches of 100, one connection."""
    queue = f"bench-{uuid4().hex}"
    if one_task:
        plan = [{"key": f"k{n}", "kind": "bench", "payload": {}} for n in range(ITEMS)]
        db.run(tasks.create_task(queue, "bench", queue=queue, items=json.dumps(plan)))
    else:
        for n in range(ITEMS):
            db.run(tasks.submit(f"{queue}-{n}", "bench", "bench", "{}", queue=queue))
    worker_id = new_worker_id()
    db.run(
        workers.register_worker(
            worker_id, label="bench", host=host(), pid=1, process=process_identity(), version="0", role="runner",
            ttl_s=600, serves="{}",
        )
    )  # fmt: skip
    lanes = db.run(workers.lanes_of([queue], ["bench"]))
    started, done = time.perf_counter(), 0
    while done < ITEMS:
        claimed = db.run(items.claim(worker_id, 0, lanes, BATCH)).items
        fenced = db.run(items.complete(worker_id, [(item.item_id, item.token, "null") for item in claimed]))
        done += len(claimed) - len(fenced)
    taken = (time.perf_counter() - started) * 1000 / ITEMS
    db.run(workers.retire_worker(worker_id, "stopped"))
    return taken
