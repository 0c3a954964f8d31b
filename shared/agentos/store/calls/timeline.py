"""Reading for people: what happened to a task, who works, what is wrong. Nothing here writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar, cast

from agentos.store.canonical import loads
from agentos.store.codec import open_text
from agentos.store.run import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened beside the happy path, such as `lease_reclaimed`."""

    at: datetime
    event: str
    item_id: int | None
    attempt: int | None
    worker_id: int | None
    data: Any


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """The verdict on one claim; `place`: where it stands in its pack, from 0."""

    place: int
    evidence_type: str
    description: str
    holds: bool
    reason: str
    took_s: float


@dataclass(frozen=True, slots=True)
class CheckedEvidence:
    """One check that was made: of checkpoint `sequence_number`, or of what the tool call `call` produced. `claims`:
    those that do not hold first, at most 100, and `more` beyond them. `attempt` None: not by a worker.
    """

    at: datetime
    item_id: int | None
    attempt: int | None
    worker_id: int | None
    host: str
    sequence_number: int | None
    call: str | None
    holds: bool
    reason: str
    claims: tuple[CheckedClaim, ...]
    more: int


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """A checkpoint without its snapshot. `snapshot_bytes` is the size of its JSON."""

    sequence_number: int
    item_id: int | None
    ordinal: int | None
    checkpoint_type: str
    snapshot_bytes: int
    snapshot_sha256: str
    evidence: Any
    host: str
    workspace: str
    worker_id: int | None
    attempt: int | None
    created_at: datetime
    superseded_at: datetime | None
    superseded_reason: str | None


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A model call. `generations`: how often it was made and paid; `hits`: how often its output was reused."""

    item_id: int | None
    operation_type: str
    model: str
    state: str
    prompt_preview: str
    prompt_tokens: int | None
    completion_tokens: int | None
    generations: int
    hits: int
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ModelCallRow:
    """A model call with its request and output as they are stored (JSON texts, large values as parts). `request_text`
    None: it was not kept; `output_text` None: it is under way.
    """

    call_id: str
    item_id: int | None
    operation_type: str
    model: str
    state: str
    prompt_sha256: str
    request_text: str | None
    output_text: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to a person. `open`: it waits for an answer now. `approved` None: not answered, `open` or expired."""

    question_id: str
    item_id: int
    question: str
    shown: Any
    shown_sha256: str
    options: list[str] | None
    asked_at: datetime
    expires_at: datetime | None
    open: bool
    approved: bool | None
    option: str | None
    answered_by: str | None
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A process that beats or has beaten. `state`: alive, draining, late, stopped or dead; `held`: its leases."""

    worker_id: int
    label: str
    host: str
    pid: int
    role: str
    version: str
    state: str
    held: int
    loop_lag_ms: int
    started_at: datetime
    beat_at: datetime
    beat_age_s: float
    ttl_s: float
    serves: Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or that waits for a person; `data` says where."""

    finding: str
    data: dict[str, Any]


def _oldest_first(cls: type[T], rows: Sequence[Any], *json_columns: str) -> tuple[T, ...]:
    """The newest rows were read; they are told in the order in which they happened."""
    return tuple(reversed(_each(cls, rows, *json_columns)))


def _each(cls: type[T], rows: Sequence[Any], *json_columns: str) -> tuple[T, ...]:
    return tuple(cls(**{**dict(row), **{name: loads(row[name]) for name in json_columns}}) for row in rows)


def task_events(task_id: str, limit: int = 1000) -> Call[tuple[Event, ...]]:
    """The newest `limit` events of a task, oldest first."""
    return Call(
        "SELECT * FROM agentos.task_events($1::text, $2::integer)",
        (task_id, limit),
        lambda rows: _oldest_first(Event, rows, "data"),
    )


def task_verdicts(task_id: str, limit: int = 1000) -> Call[tuple[CheckedEvidence, ...]]:
    """The newest `limit` checks of a task's evidence, oldest first."""
    return Call(
        "SELECT * FROM agentos.task_verdicts($1::text, $2::integer)",
        (task_id, limit),
        lambda rows: tuple(_checked(row) for row in rows)[::-1],
    )


def _checked(row: Any) -> CheckedEvidence:
    data = loads(row["data"])
    return CheckedEvidence(
        row["at"], row["item_id"], row["attempt"], row["worker_id"], data["host"], data.get("sequence_number"),
        data.get("call"), data["holds"], data["reason"], tuple(CheckedClaim(**each) for each in data["claims"]),
        data["more"],
    )  # fmt: skip


def task_checkpoints(task_id: str, limit: int = 1000) -> Call[tuple[CheckpointSummary, ...]]:
    """The newest `limit` checkpoints of a task, superseded ones too, oldest first."""
    return Call(
        "SELECT * FROM agentos.task_checkpoints($1::text, $2::integer)",
        (task_id, limit),
        lambda rows: _oldest_first(CheckpointSummary, rows, "evidence"),
    )


def task_prompts(task_id: str, limit: int = 1000) -> Call[tuple[PromptSummary, ...]]:
    """The newest `limit` model calls of a task, oldest first."""
    return Call(
        "SELECT * FROM agentos.task_prompts($1::text, $2::integer)",
        (task_id, limit),
        lambda rows: _oldest_first(PromptSummary, rows),
    )


def model_calls(task_id: str, before: datetime | None, limit: int) -> Call[tuple[ModelCallRow, ...]]:
    """The newest `limit` model calls of a task that began before a moment, whole, newest first."""
    return Call(
        "SELECT * FROM agentos.model_calls($1::text, $2::timestamptz, $3::integer)",
        (task_id, before, limit),
        lambda rows: tuple(_model_call(row) for row in rows),
    )


def _model_call(row: Any) -> ModelCallRow:
    call = ModelCallRow(*row.values())
    return call if call.request_text is None else replace(call, request_text=open_text(call.request_text))


def task_approvals(task_id: str) -> Call[tuple[Approval, ...]]:
    """What the task asked people, oldest first."""
    return Call(
        "SELECT * FROM agentos.task_approvals($1::text)", (task_id,), lambda rows: _each(Approval, rows, "shown")
    )


def list_workers(gone_s: float = 0.0) -> Call[tuple[WorkerRow, ...]]:
    """Living workers, and those that ended less than `gone_s` seconds ago."""
    return Call(
        "SELECT * FROM agentos.list_workers($1::float8)",
        (float(gone_s),),
        lambda rows: _each(WorkerRow, rows, "serves"),
    )


def findings(old_transaction_s: float = 60.0, silent_s: float = 3600.0) -> Call[tuple[Finding, ...]]:
    """What `agentos doctor` tells. A transaction counts as old after `old_transaction_s` seconds, an attempt as silent
    when it has recorded nothing for `silent_s`.
    """
    return Call(
        "SELECT * FROM agentos.findings($1::float8, $2::float8)",
        (float(old_transaction_s), float(silent_s)),
        lambda rows: _each(Finding, rows, "data"),
    )


def is_led(name: str) -> Call[bool]:
    """Whether a living coordinator leads."""
    return Call("SELECT agentos.is_led($1::text) AS led", (name,), lambda rows: bool(rows[0]["led"]))


def server_time() -> Call[datetime]:
    """What the server's own clock says."""
    return Call("SELECT agentos.server_time() AS at", (), lambda rows: cast(datetime, rows[0]["at"]))
