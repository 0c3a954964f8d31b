"""Going back to a checkpoint: what came after it, and the transition; and the tasks that failed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.store.canonical import loads
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class RecordedEffect:
    """A recorded call, before or after the checkpoint. `state`: begun, finished or failed."""

    idempotency_key: str
    item_id: int | None
    item_key: str | None
    tool_name: str
    arguments: Any
    state: str
    on_doubt: str
    executions: int
    begun_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A task that failed, and what a retry would find. `items`: those it opens, `quarantined` of them because they
    ended their worker's process again and again. `checkpoint`: the newest that may hold. `replays`: recorded calls.
    `in_doubt`: calls whose tool decides. `questions`: to be answered before (`agentos doubts`).
    """

    task_id: str
    kind: str | None
    title: str
    reason: str | None
    finished_at: datetime | None
    items: int
    quarantined: int
    checkpoint: int | None
    replays: int
    in_doubt: int
    questions: int


@dataclass(frozen=True, slots=True)
class RewindScope:
    """The items that are open again after a rewind, and the sequence numbers of the checkpoints it supersedes."""

    items: tuple[int, ...]
    checkpoints: tuple[int, ...]


def rewind_calls(task_id: str, to: int) -> Call[tuple[RecordedEffect, ...]]:
    """The recorded calls that came after the checkpoint `to` (0: all), in order. Writes nothing.

    Raises UnknownTask, UnknownCheckpoint: if there is none, or it is superseded.
    """
    return Call(
        "SELECT * FROM agentos.rewind_calls($1::text, $2::bigint)",
        (task_id, to),
        lambda rows: tuple(RecordedEffect(**{**dict(row), "arguments": loads(row["arguments"])}) for row in rows),
    )


def rewind_scope(task_id: str, to: int) -> Call[RewindScope]:
    """What else a rewind would change. Writes nothing."""
    return Call(
        "SELECT * FROM agentos.rewind_scope($1::text, $2::bigint)",
        (task_id, to),
        lambda rows: RewindScope(tuple(rows[0]["items"]), tuple(rows[0]["checkpoints"])),
    )


def rewind_task(task_id: str, to: int, choices: str, by: str) -> Call[tuple[int, ...]]:
    """Go back to the checkpoint `to`, in one commit. `choices`: JSON text, by tool {"action": "re_execute"} or
    {"action": "stub", "result": ..., "exit_code": ...}. Returns the items that are open again.

    Raises TaskHeld: while a worker holds an item of the task. UnknownTask, UnknownCheckpoint.
    """
    return Call(
        "SELECT agentos.rewind_task($1::text, $2::bigint, $3::text, $4::text) AS items",
        (task_id, to, choices, by),
        lambda rows: tuple(rows[0]["items"]),
    )


def dead_tasks(limit: int = 100) -> Call[tuple[DeadTask, ...]]:
    """The tasks that failed, newest first."""
    return Call(
        "SELECT * FROM agentos.dead_tasks($1::integer)", (limit,), lambda rows: tuple(DeadTask(**dict(r)) for r in rows)
    )
