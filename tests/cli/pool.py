"""A worker by hand: claims in the test's process, so that a test decides what happens to an item."""

from agentos.core.process import host, new_worker_id, process_identity
from agentos.store.calls import items, workers
from agentos.store.calls.items import ClaimedItem, Fence
from agentos.store.connect import Database


class HandWorker:
    """Alive for `ttl_s` without beats; serves `work` in queue default."""

    def __init__(self, db: Database, *, ttl_s: float = 60.0, label: str = "by-hand") -> None:
        self.db = db
        self.worker_id = new_worker_id()
        db.run(
            workers.register_worker(
                self.worker_id, label=label, host=host(), pid=1, process=process_identity(), version="0", role="worker",
                ttl_s=ttl_s, serves='{"queues": ["default"], "kinds": ["work"], "concurrency": 2}',
            )
        )  # fmt: skip

    def claim(self) -> ClaimedItem:
        """One item."""
        lanes = self.db.run(workers.lanes_of(["default"], ["work"]))
        (item,) = self.db.run(items.claim(self.worker_id, 0, lanes, 1)).items
        return item

    def fence(self, item: ClaimedItem) -> Fence:
        """The proof that it holds the item."""
        return item.fence(self.worker_id)

    def complete(self, item: ClaimedItem, result: str = '{"answer": 42}') -> None:
        """End it well."""
        self.db.run(items.complete(self.worker_id, [(item.item_id, item.token, result)]))

    def fail(self, item: ClaimedItem, message: str = "it broke", *, terminal: bool = True) -> None:
        """End it badly."""
        error = f'{{"type": "Broken", "message": "{message}"}}'
        self.db.run(items.fail(self.fence(item), error, terminal=terminal))
