"""A committed checkpoint as users see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from agentos.core.evidence import EvidencePack
from agentos.store.calls.checkpoints import CheckpointRow
from agentos.store.canonical import loads
from agentos.store.errors import UnknownCheckpoint


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint. `sequence_number` counts from 1, without gaps, within its task.

    `host` is the one it was made on. `created_at` is the database's clock.
    """

    checkpoint_id: str
    task_id: str
    work_item_id: int | None
    sequence_number: int
    checkpoint_type: str
    snapshot: Any
    evidence_pack: EvidencePack
    host: str
    created_at: datetime

    @classmethod
    def from_row(cls, row: CheckpointRow) -> Self:
        """The checkpoint of a stored row."""
        return cls(
            checkpoint_id=checkpoint_id(row.task_id, row.sequence_number),
            task_id=row.task_id,
            work_item_id=row.item_id,
            sequence_number=row.sequence_number,
            checkpoint_type=row.checkpoint_type,
            snapshot=loads(row.snapshot_text),
            evidence_pack=EvidencePack.from_json(row.evidence),
            host=row.host,
            created_at=row.created_at,
        )


def checkpoint_id(task_id: str, sequence_number: int) -> str:
    """`task-123#7`: the seventh checkpoint of task-123."""
    return f"{task_id}#{sequence_number}"


def parse_checkpoint_id(text: str) -> tuple[str, int]:
    """Task id and sequence number. Raises UnknownCheckpoint: if `text` is no checkpoint id."""
    task_id, _, number = str(text).rpartition("#")
    if not task_id or not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise UnknownCheckpoint(
            f"{text!r} is no checkpoint id", hint="pass checkpoint.checkpoint_id, which looks like task-123#7"
        )
    return task_id, int(number)
