"""How a run ended."""

from dataclasses import dataclass
from typing import Any

from agentos.store.calls.tasks import TaskProgress, task_items
from agentos.store.run import SyncRunner


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a run ended. `status`: completed, failed or cancelled; waiting, if a person is asked; `reason` says why.

    `result`: of a task submitted as one item its result, of others an object {item key: result}; None unless completed.
    `items_run`: attempts at items in this run. `resumed_from`: the id of the checkpoint that it went on from, if any.
    """

    task_id: str
    status: str
    reason: str | None
    result: Any
    items_run: int
    resumed_from: str | None

    @property
    def completed(self) -> bool:
        """Whether the task is done."""
        return self.status == "completed"


def outcome_of(
    db: SyncRunner, task_id: str, progress: TaskProgress, *, items_run: int = 0, resumed_from: str | None = None
) -> TaskOutcome:
    """The outcome of a task that stands so."""
    result, reason = None, progress.reason
    if progress.status == "completed":
        rows = () if progress.single else db.run(task_items(task_id))
        result = progress.result if progress.single else {row.key or str(row.seq): row.result for row in rows}
    elif progress.status == "waiting":
        reason = f"it waits for a person: agentos approve {task_id}, then run it again"
    elif progress.status == "paused":
        reason = f"it is paused: agentos resume {task_id}, then run it again"
    return TaskOutcome(task_id, progress.status, reason, result, items_run, resumed_from)
