"""What the database says about the demo's task, read again and again: the conductor sees what anybody could see."""

from collections.abc import Set
from dataclasses import dataclass, field
from datetime import datetime

from agentos.store.calls import ledger, tasks, timeline
from agentos.store.calls.ledger import LedgerEntry
from agentos.store.calls.tasks import ItemRow, TaskProgress
from agentos.store.calls.timeline import CheckpointSummary, Event, PromptSummary, WorkerRow
from agentos.store.connect import Database
from agentos.store.run import Call

MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """One moment. `workers`: those that serve the demo's queue, also those that ended during it."""

    progress: TaskProgress
    items: tuple[ItemRow, ...]
    workers: tuple[WorkerRow, ...]
    events: tuple[Event, ...]

    def held_by(self, worker_id: int) -> list[ItemRow]:
        """What a worker holds."""
        return [item for item in self.items if item.place == "held" and item.worker_id == worker_id]

    @property
    def crew(self) -> list[WorkerRow]:
        """The workers that the conductor started."""
        return sorted((each for each in self.workers if each.role != "solo"), key=lambda worker: worker.label)

    @property
    def loners(self) -> list[WorkerRow]:
        """The processes that run one item each, after it lost its first process."""
        return [worker for worker in self.workers if worker.role == "solo"]

    def label_of(self, worker_id: int | None) -> str:
        """A worker's name for people."""
        worker = next((each for each in self.workers if each.worker_id == worker_id), None)
        if worker is None:
            return "a worker"
        return f"a process of its own ({worker.pid})" if worker.role == "solo" else worker.label

    def name_of(self, item_id: int | None) -> str:
        """An item's key."""
        return next((item.key or "(plan)" for item in self.items if item.item_id == item_id), "?")

    @property
    def audits(self) -> list[ItemRow]:
        """The items that audit a distribution."""
        return [item for item in self.items if item.kind == "audit.distribution"]

    @property
    def done(self) -> int:
        """Items that completed."""
        return sum(item.status == "completed" for item in self.items)


@dataclass(frozen=True, slots=True)
class Records:
    """All that was recorded of the task, read once at its end."""

    calls: tuple[LedgerEntry, ...]
    finished_keys: frozenset[str]
    prompts: tuple[PromptSummary, ...]
    checkpoints: tuple[CheckpointSummary, ...] = field(repr=False)


class Watch:
    """Reads one task and the workers of one queue."""

    def __init__(self, db: Database, task_id: str, queue: str) -> None:
        self.db = db
        self.task_id = task_id
        self._queue = queue

    def look(self) -> Look:
        """How it stands."""
        run = self.db.run
        return Look(
            run(tasks.task_progress(self.task_id)), run(tasks.task_items(self.task_id)), self.present(),
            run(timeline.task_events(self.task_id)),
        )  # fmt: skip

    def present(self) -> tuple[WorkerRow, ...]:
        """The demo's workers, dead ones too, oldest first."""
        known = self.db.run(timeline.list_workers(gone_s=3600))
        mine = [worker for worker in known if self._queue in (worker.serves or {}).get("queues", ())]
        return tuple(sorted(mine, key=lambda worker: worker.started_at))

    def checkpoints(self) -> tuple[CheckpointSummary, ...]:
        """All checkpoints, superseded ones too."""
        return self.db.run(timeline.task_checkpoints(self.task_id, MANY))

    def is_asking(self, item_ids: Set[int]) -> bool:
        """Whether one of these items waits for a model's answer now."""
        prompts = self.db.run(timeline.task_prompts(self.task_id, MANY))
        return any(prompt.state == "generating" and prompt.item_id in item_ids for prompt in prompts)

    def records(self) -> Records:
        """Everything, for the summary."""
        run = self.db.run
        return Records(
            run(ledger.ledger_history(self.task_id, MANY)), run(finished_keys(self.task_id)),
            run(timeline.task_prompts(self.task_id, MANY)), self.checkpoints(),
        )  # fmt: skip

    def now(self) -> datetime:
        """The database's clock: all times of the summary are on it."""
        clock: Call[datetime] = Call("SELECT agentos.clock() AS now", (), lambda rows: rows[0]["now"])
        return self.db.run(clock)


def finished_keys(task_id: str) -> Call[frozenset[str]]:
    """The idempotency keys of the calls that had an effect and are recorded as finished."""
    return Call(
        "SELECT key FROM agentos.idempotency_keys WHERE task_id = $1::text AND source = 'tool' AND state = 'finished'"
        " AND name IN ('verify_files', 'check_requirements', 'write_artifact')",
        (task_id,),
        lambda rows: frozenset(row["key"] for row in rows),
    )
