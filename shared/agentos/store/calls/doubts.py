"""Questions that only a person can answer: a call in doubt, a program that changed under its record."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from agentos.store.calls.items import Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.canonical import loads
from agentos.store.codec import seal_optional
from agentos.store.run import Call

Sort = Literal["call", "program"]
Answer = Literal["done", "not_done", "fail", "continue"]


@dataclass(frozen=True, slots=True)
class Doubt:
    """An open question. `doubt_id` names it, and the execution that it is about; `parked`: the item waits for the
    answer, otherwise it failed on it. Of a changed program the call is the recorded one, and `shown` has both sides.
    """

    doubt_id: UUID
    task_id: str
    item_id: int | None
    item_key: str | None
    sort: Sort
    message: str
    shown: Any
    asked_at: datetime
    parked: bool
    tool_name: str
    arguments: Any
    idempotency_key: str
    executions: int
    on_doubt: str
    begun_at: datetime
    worker_id: int | None
    host: str | None


def ask_doubt(
    doubt_id: UUID, call: CallIdentity, fence: Fence | None, worker_id: int, message: str, *, park: bool,
    sort: Sort = "call", shown: str = "{}",
) -> Call[bool]:  # fmt: skip
    """Ask about `call`; with `park` the item waits for the answer, and its lease has ended. `shown`: JSON text.

    False: the call is not in doubt any more. Raises LeaseLost, TaskCancelled: with a fence.
    """
    return Call(
        "SELECT agentos.ask_doubt($1::uuid, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::text,"
        " $8::integer, $9::text, $10::text, $11::boolean) AS asked",
        (
            doubt_id, call.task_id, call.item_id, worker_id, fence.token if fence else None, sort, call.key,
            call.ordinal, message, shown, park,
        ),
        lambda rows: bool(rows[0]["asked"]),
    )  # fmt: skip


def resolve_doubt(
    task_id: str, doubt_id: UUID, answer: Answer, *, result: str | None, exit_code: int | None, by: str
) -> Call[str]:
    """Answer a question. `result`: JSON text, with `done`. Returns what became of the item: ready, waiting (for the
    answer to another question), failed, or noted (it has failed before: retry the task).

    Raises AnswerRefused: if it was answered before, or the call is not in doubt any more. UnknownTask.
    """
    return Call(
        "SELECT agentos.resolve_doubt($1::text, $2::uuid, $3::text, $4::text, $5::integer, $6::text) AS became",
        (task_id, doubt_id, answer, seal_optional(result), exit_code, by),
        lambda rows: str(rows[0]["became"]),
    )


def open_doubts(task_id: str | None = None, limit: int = 100) -> Call[tuple[Doubt, ...]]:
    """The open questions of a task, or of the whole pool, oldest first."""

    def read(rows: Any) -> tuple[Doubt, ...]:
        return tuple(
            Doubt(**{**dict(row), "arguments": loads(row["arguments"]), "shown": loads(row["shown"])}) for row in rows
        )

    return Call("SELECT * FROM agentos.open_doubts($1::text, $2::integer)", (task_id, limit), read)
