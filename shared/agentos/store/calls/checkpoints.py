"""Committing, reading and superseding checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from agentos.store.calls.items import Fence
from agentos.store.canonical import loads
from agentos.store.codec import open_text, seal, seal_body
from agentos.store.run import Call, Together


class NewCheckpoint(NamedTuple):
    """What is committed; a tuple, as `ClaimedItem`. `snapshot` and `evidence` are JSON text; `ordinal` is the item's
    own count, program order.
    """

    task_id: str
    item_id: int | None
    checkpoint_type: str
    snapshot: str
    snapshot_sha256: str
    evidence: str
    ordinal: int | None
    host: str
    workspace: str
    step_id: UUID


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a checkpoint came to stand in its task."""

    sequence_number: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint as stored. `snapshot_text` is what `snapshot_sha256` was taken over."""

    task_id: str
    sequence_number: int
    item_id: int | None
    ordinal: int | None
    checkpoint_type: str
    snapshot_text: str
    snapshot_sha256: str
    evidence: Any
    host: str
    workspace: str
    created_at: datetime
    superseded_reason: str | None


@dataclass(frozen=True, slots=True)
class RecordedExit:
    """What the ledger recorded of one call. `exit_code` is None when the call's result has none."""

    exit_code: int | None
    command: str
    tool_name: str = "bash"
    finished_at: datetime | None = None


def _committed(rows: Sequence[Any]) -> Committed:
    return Committed(rows[0]["sequence_number"], rows[0]["created_at"])


def _plainly_committed(row: Any) -> Committed:
    return Committed(row.sequence_number, row.at)


def _rows(rows: Sequence[Any]) -> tuple[CheckpointRow, ...]:
    read = []
    for row in rows:
        values = dict(row)
        text = values.pop("snapshot")
        read.append(CheckpointRow(**{**values, "evidence": loads(values["evidence"])}, snapshot_text=open_text(text)))
    return tuple(read)


def commit_checkpoint(new: NewCheckpoint, fence: Fence | None, worker_id: int | None = None) -> Call[Committed]:
    """Commit under the fence, or without a lease under the task's head.

    Raises LeaseLost, TaskCancelled: with a fence. TaskHeld, UnknownTask, UnknownWorkItem: without one.
    """
    snapshot = seal(new.snapshot)
    return Call(
        "SELECT * FROM agentos.commit_checkpoint($1::text, $2::bigint, $3::bigint, $4::uuid, $5::text,"
        " $6::text, $7::text,"
        " $8::text, $9::integer, $10::text, $11::text, $12::uuid)",
        (
            new.task_id, new.item_id, fence.worker_id if fence else worker_id, fence.token if fence else None,
            new.checkpoint_type, snapshot, new.snapshot_sha256, new.evidence, new.ordinal, new.host, new.workspace,
            new.step_id,
        ),
        _committed,
        Together("commit_checkpoint", fence, _plainly_committed, len(snapshot) + len(new.evidence))
        if fence and new.item_id == fence.item_id else None,
    )  # fmt: skip


def commit_parted(
    new: NewCheckpoint, fence: Fence | None, worker_id: int | None, names: Sequence[str], bodies: Mapping[str, bytes]
) -> Call[Committed]:
    """Commit a checkpoint whose snapshot names parts: `names` all of them, `bodies` those that may not be stored yet.

    Raises PartsMissing: if one is not, and otherwise as `commit_checkpoint`.
    """
    call = commit_checkpoint(new, fence, worker_id)
    return Call(
        "SELECT * FROM agentos.commit_parted($1::text, $2::bigint, $3::bigint, $4::uuid, $5::text, $6::text, $7::text,"
        " $8::text, $9::integer, $10::text, $11::text, $12::uuid, $13::text[], $14::text[], $15::bytea[])",
        (*call.args, list(names), list(bodies), [seal_body(body) for body in bodies.values()]),
        call.read,
    )


def committed_step(task_id: str, step_id: UUID) -> Call[Committed | None]:
    """What a commit whose reply was lost wrote, if it did."""
    return Call(
        "SELECT * FROM agentos.committed_step($1::text, $2::uuid)",
        (task_id, step_id),
        lambda rows: _committed(rows) if rows else None,
    )


def require_item(task_id: str, item_id: int | None) -> Call[None]:
    """Raises UnknownTask, UnknownWorkItem."""
    return Call("SELECT agentos.require_item($1::text, $2::bigint)", (task_id, item_id), lambda _: None)


def checkpoint_of(task_id: str, sequence_number: int) -> Call[CheckpointRow | None]:
    """One checkpoint, or None."""
    return Call(
        "SELECT * FROM agentos.checkpoint_of($1::text, $2::bigint)",
        (task_id, sequence_number),
        lambda rows: next(iter(_rows(rows)), None),
    )


def checkpoints_before(
    task_id: str, *, item_id: int | None = None, before: int | None = None, limit: int = 20
) -> Call[tuple[CheckpointRow, ...]]:
    """Newest first, those not superseded; of one item, or of the whole task."""
    return Call(
        "SELECT * FROM agentos.checkpoints_before($1::text, $2::bigint, $3::bigint, $4::integer)",
        (task_id, item_id, before, limit),
        _rows,
    )


def supersede(fence: Fence, reasons: Sequence[tuple[int, str]]) -> Call[None]:
    """Mark checkpoints (sequence number, reason) that no longer hold. Raises LeaseLost."""
    return Call(
        "SELECT agentos.supersede($1::bigint, $2::bigint, $3::uuid, $4::bigint[], $5::text[])",
        (fence.item_id, fence.worker_id, fence.token, [s for s, _ in reasons], [r for _, r in reasons]),
        lambda _: None,
    )


def note_resume(fence: Fence, data: str) -> Call[None]:
    """Put into the timeline what this attempt resumed from; `data`: JSON text. Raises LeaseLost."""
    return Call(
        "SELECT agentos.note_resume($1::bigint, $2::bigint, $3::uuid, $4::text)",
        (fence.item_id, fence.worker_id, fence.token, data),
        lambda _: None,
    )


def keep_verdict(
    task_id: str, item_id: int | None, worker_id: int | None, attempt: int | None, data: str
) -> Call[None]:
    """Append a check of evidence to the task's log; `data`: JSON text, see `task_verdicts`."""
    return Call(
        "SELECT agentos.keep_verdict($1::text, $2::bigint, $3::bigint, $4::integer, $5::text)",
        (task_id, item_id, worker_id, attempt, data),
        lambda _: None,
    )


def recorded_exit(task_id: str, command: str | None, before: datetime | None) -> Call[RecordedExit | None]:
    """The exit code the ledger recorded for `command`; without one, for the task's newest call until `before`."""
    return Call(
        "SELECT * FROM agentos.recorded_exit($1::text, $2::text, $3::timestamptz)",
        (task_id, command, before),
        lambda rows: RecordedExit(**dict(rows[0])) if rows else None,
    )
