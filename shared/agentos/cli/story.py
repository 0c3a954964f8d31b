"""Everything known about one task, gathered for `agentos show`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentos.cli.tasks import with_reasons
from agentos.core.flows.checkpoints import whole
from agentos.core.verification import verifier
from agentos.store.calls import ledger, tasks, timeline
from agentos.store.calls.checkpoints import checkpoint_of
from agentos.store.calls.ledger import LedgerEntry
from agentos.store.calls.retention import records_retired_at, retired_task
from agentos.store.calls.tasks import ItemRow, TaskProgress, TaskRow
from agentos.store.calls.timeline import Approval, CheckpointSummary, Event, PromptSummary
from agentos.store.connect import Database
from agentos.store.errors import TaskRetired, UnknownTask
from agentos.store.run import drive


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of an item and how it `ended`: running, completed, failed, crashed, quarantined, cancelled."""

    item_id: int
    attempt: int
    ended: str
    worker_id: int | None
    claimed_at: datetime | None
    ended_at: datetime | None
    error: Any = None
    resumed_from: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a checkpoint's evidence holds here and now."""

    holds: bool
    reason: str
    verdicts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Story:
    """A task and its records, oldest first. `verdicts` by sequence number; empty unless they were asked for."""

    task: TaskRow
    progress: TaskProgress
    items: tuple[ItemRow, ...]
    attempts: tuple[Attempt, ...]
    events: tuple[Event, ...]
    checkpoints: tuple[CheckpointSummary, ...]
    tool_calls: tuple[LedgerEntry, ...]
    llm_calls: tuple[PromptSummary, ...]
    approvals: tuple[Approval, ...]
    verdicts: dict[int, Verdict]
    records_retired_at: datetime | None

    def name(self, item_id: int | None) -> str:
        """What people call an item: its key."""
        if item_id is None:
            return ""
        return next(
            (item.key or f"item {item_id}" for item in self.items if item.item_id == item_id), f"item {item_id}"
        )


def tell(db: Database, task_id: str, *, limit: int, verify: bool) -> Story:
    """Read it all, each kind of record up to `limit`. Raises UnknownTask. TaskRetired: if it went, or is going."""
    if gone := db.run(retired_task(task_id)):
        raise TaskRetired(
            f"task {task_id} was retired at {gone.retired_at:%Y-%m-%d %H:%M} ({gone.retired_at:%Z}); made at "
            f"{gone.created_at:%Y-%m-%d %H:%M}, it was {gone.status} at {gone.finished_at:%Y-%m-%d %H:%M}",
            hint="nothing else is left of it; how long tasks are kept after their end: AGENTOS_RETENTION_TASKS_D",
        )
    task = db.run(tasks.get_task(task_id))
    if task is None:
        raise UnknownTask(f"no task has the id {task_id!r}", hint="list the newest ones: agentos tasks")
    (task,) = with_reasons(db, (task,))
    events = db.run(timeline.task_events(task_id, limit))
    items = db.run(tasks.task_items(task_id))
    checkpoints = db.run(timeline.task_checkpoints(task_id, limit))
    calls = db.run(ledger.ledger_history(task_id, limit))
    return Story(
        task=task, progress=db.run(tasks.task_progress(task_id)), items=items, attempts=_attempts(items, events),
        events=events, checkpoints=checkpoints, tool_calls=calls[::-1],
        llm_calls=db.run(timeline.task_prompts(task_id, limit)), approvals=db.run(timeline.task_approvals(task_id)),
        verdicts={each.sequence_number: _verdict(db, task_id, each) for each in checkpoints} if verify else {},
        records_retired_at=db.run(records_retired_at(task_id)),
    )  # fmt: skip


def _verdict(db: Database, task_id: str, checkpoint: CheckpointSummary) -> Verdict:
    """Checked as a worker without leave to run commands would: nothing is run again, and nothing is kept of it."""
    row = db.run(checkpoint_of(task_id, checkpoint.sequence_number))
    if row is None:
        return Verdict(False, "it is gone")
    found = verifier(db, task_id, may_rerun=False, logged=False).row(drive(db, whole(row)))
    return Verdict(found.holds, found.reason, [verdict.as_json() for verdict in found.verdicts])


def _attempts(items: tuple[ItemRow, ...], events: tuple[Event, ...]) -> tuple[Attempt, ...]:
    """Ended attempts are told by events and outcomes, the running one by its lease. One given back leaves no trace."""
    resumed = {
        (event.item_id, event.attempt): event.data.get("sequence_number")
        for event in events
        if event.event == "resumed"
    }
    found = {(each.item_id, each.attempt): each for event in events if (each := _from_event(event, resumed))}
    for item in items:
        key = (item.item_id, item.attempt)
        if item.place == "held":
            found[key] = Attempt(*key, "running", item.worker_id, item.at, None, None, resumed.get(key))
        elif item.status and item.claimed_at:
            found[key] = Attempt(
                *key, item.status, item.worker_id, item.claimed_at, item.at, item.error, resumed.get(key)
            )
    return tuple(found[key] for key in sorted(found))


_ENDED = {"lease_reclaimed": "crashed", "attempt_failed": "failed"}


def _from_event(event: Event, resumed: dict[tuple[int | None, int | None], Any]) -> Attempt | None:
    if event.item_id is None or not event.attempt:  # attempt 0: it never ran
        return None
    if event.event == "reopened" and event.data.get("status") in ("waiting", "scheduled", "ready"):
        return None  # no attempt had ended there
    if event.event in ("retried", "reopened"):  # the outcome before the retry, or the rewind
        ended, error, claimed = event.data.get("status", "failed"), event.data.get("error"), None
    elif event.event in _ENDED:
        ended = _ENDED[event.event]
        error = event.data if ended == "failed" else None
        claimed = event.data.get("claimed_at")
    else:
        return None
    return Attempt(
        event.item_id, event.attempt, ended, event.worker_id, datetime.fromisoformat(claimed) if claimed else None,
        event.at, error, resumed.get((event.item_id, event.attempt)),
    )  # fmt: skip
