"""Workers that have died, and what they held."""

from agentos.core.process import new_worker_id
from agentos.store.calls import items, tasks, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import Database


def submit_many(db: Database, count: int, *, delay_s: float = 0.0, prefix: str = "task") -> None:
    """`count` tasks of one item each: task-0, task-1 …"""
    for n in range(count):
        db.run(tasks.submit(f"{prefix}-{n}", "work", "a title", "{}", delay_s=delay_s))


def worker_that_dies(db: Database, *, ttl_s: float, claims: int) -> tuple[int, tuple[ClaimedItem, ...]]:
    """A worker that claims and never beats: dead after `ttl_s`."""
    worker_id = new_worker_id()
    db.run(
        workers.register_worker(
            worker_id, label="dying", host="elsewhere", pid=1, process="", version="0", role="worker", ttl_s=ttl_s,
            serves='{"queues": ["default"], "kinds": ["work"], "concurrency": 1}',
        )
    )  # fmt: skip
    lanes = db.run(workers.lanes_of(["default"], ["work"]))
    return worker_id, db.run(items.claim(worker_id, 0, lanes, claims)).items
