"""One worker's statements on a session of its own, without its process: what the engine costs, and nothing else."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentos.core.process import host, new_worker_id, process_identity
from agentos.core.task_id import new_task_ids
from agentos.store.calls import items, tasks, workers
from agentos.store.connect import OnConnection, connect
from bench import raw

BATCH = 100
NOTHING_LEFT = 5
"""So many empty claims in a row end a drain: one alone may have met what another session locks."""


@dataclass(slots=True)
class Took:
    """What a while of work took: items, seconds, and the milliseconds of each claim."""

    items: int = 0
    seconds: float = 0.0
    claims: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.items / self.seconds if self.seconds else 0.0


class Claimer:
    """Submits to its queue, claims from it, completes; beats and sweeps when told."""

    def __init__(self, dsn: str, queues: Sequence[str] = ("long",)) -> None:
        self.conn = connect(dsn)
        self._session, self._queues = OnConnection(self.conn), queues
        self.worker_id = new_worker_id()
        self._session.run(
            workers.register_worker(
                self.worker_id, label="bench", host=host(), pid=1, process=process_identity(), version="0",
                role="runner", ttl_s=7200, serves=json.dumps({}),
            )
        )  # fmt: skip
        self.lanes = self._session.run(workers.lanes_of(queues, ["noop"]))

    def work(self, seconds: float) -> Took:
        """Submit, claim and complete, at full speed."""
        took, began = Took(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            ids = new_task_ids(2 * BATCH)
            self._session.run(tasks.submit_many(ids, "noop", "noop", [raw.PAYLOAD] * len(ids), queue=self._queues[0]))
            for _ in range(2):
                took.items += self._turn(took)
        took.seconds = time.perf_counter() - began
        return took

    def drain(self, count: int) -> Took:
        """Claim and complete until so many are done, or nothing is left."""
        took, began, empty = Took(), time.perf_counter(), 0
        while took.items < count and empty < NOTHING_LEFT:
            done = self._turn(took)
            took.items += done
            empty = 0 if done else empty + 1
        took.seconds = time.perf_counter() - began
        return took

    def _turn(self, took: Took) -> int:
        began = time.perf_counter()
        found = self._session.run(items.claim(self.worker_id, 0, self.lanes, BATCH)).items
        took.claims.append((time.perf_counter() - began) * 1000)
        if found:
            done = [(item.item_id, item.token, "null") for item in found]
            self._session.run(items.complete(self.worker_id, done))
        return len(found)

    def beat(self) -> float:
        """Milliseconds of a beat."""
        began = time.perf_counter()
        self._session.run(workers.beat(self.worker_id, 0))
        return (time.perf_counter() - began) * 1000

    def sweep(self) -> float:
        """Milliseconds of the coordinator's sweep for lost leases."""
        began = time.perf_counter()
        self._session.run(workers.reclaim())
        self._session.run(workers.blocked_leases())
        return (time.perf_counter() - began) * 1000

    def close(self) -> None:
        """Close the session."""
        self.conn.close()
