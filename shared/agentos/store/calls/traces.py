"""What tasks carry of the trace in which they were submitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from agentos.store.run import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt before, whose lease was taken back from its worker."""

    claimed_at: datetime
    at: datetime
    worker_id: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an attempt's trace comes from. `traceparent` None: the task was submitted without one."""

    created_at: datetime
    traceparent: str | None
    tracestate: str | None
    lost: Lost | None


def with_trace(submit: Call[T], task_ids: Sequence[str], traceparent: str, tracestate: str | None) -> Call[T]:
    """The call that makes these tasks and keeps what they carry, in one statement: both, or neither."""
    at = len(submit.args)
    return Call(
        f"{submit.sql}, agentos.set_trace(${at + 1}::text[], ${at + 2}::text, ${at + 3}::text)",
        (*submit.args, list(task_ids), traceparent, tracestate),
        submit.read,
    )


def trace_of(task_id: str, item_id: int, attempt: int) -> Call[Origin | None]:
    """What an attempt goes on from; None: there is no such task."""
    return Call(
        "SELECT * FROM agentos.trace_of($1::text, $2::bigint, $3::integer)",
        (task_id, item_id, attempt),
        lambda rows: _origin(rows[0]) if rows else None,
    )


def _origin(row: Any) -> Origin:
    lost = None if row["lost_at"] is None else Lost(row["lost_claimed_at"], row["lost_at"], row["lost_worker"])
    return Origin(row["created_at"], row["traceparent"], row["tracestate"], lost)
