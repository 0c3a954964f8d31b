"""Waits, and what ends them: signals and answers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from agentos.store.calls.items import Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.canonical import loads
from agentos.store.codec import seal
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class WaitReply:
    """What a wait was told. `finished`: it is over, with `result`. `parked`: the item is a row now, leave the handler.
    `waiting`: recorded, the item goes on; `wake_in_s` seconds until it ends by itself, if it does.
    """

    verdict: Literal["finished", "parked", "waiting"]
    result: Any
    wake_in_s: float | None


def _reply(rows: Any) -> WaitReply:
    row = rows[0]
    return WaitReply(row["verdict"], None if row["result"] is None else loads(row["result"]), row["wake_in_s"])


def wait(
    call: CallIdentity, fence: Fence, *, name: str | None = None, wake_at: datetime | None = None,
    timeout_s: float | None = None, near_s: float = 0.0, park: bool = True,
) -> Call[WaitReply]:  # fmt: skip
    """Wait for what `call.tool_name` says (@sleep, @signal): record it and, with `park`, give the item up.

    `wake_at` or `timeout_s`: when it ends by itself, counted from the first time it was asked. `near_s`: a time that is
    nearer than this is not parked for. `name`: of the signal.
    Raises LeaseLost, TaskCancelled.
    """
    return Call(
        "SELECT * FROM agentos.wait($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::integer,"
        " $8::integer, $9::text, $10::text, $11::timestamptz, $12::float8, $13::float8, $14::boolean)",
        (
            call.key, call.task_id, fence.item_id, fence.worker_id, fence.token, call.tool_name, call.ordinal, call.nth,
            call.arguments, name, wake_at, timeout_s, float(near_s), park,
        ),
        _reply,
    )  # fmt: skip


def ask(
    call: CallIdentity, fence: Fence, question: str, shown: str, shown_sha256: str, *,
    options: list[str] | None = None, timeout_s: float | None = None, park: bool = True,
) -> Call[WaitReply]:  # fmt: skip
    """Ask a person and wait, as `wait` does. `shown`: JSON text of what it is about, `shown_sha256` its hash."""
    return Call(
        "SELECT * FROM agentos.ask($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::integer, $7::integer,"
        " $8::text, $9::text, $10::text, $11::text, $12::text[], $13::float8, $14::boolean)",
        (
            call.key, call.task_id, fence.item_id, fence.worker_id, fence.token, call.ordinal, call.nth, call.arguments,
            question, seal(shown), shown_sha256, options, timeout_s, park,
        ),
        _reply,
    )  # fmt: skip


def spawn(
    call: CallIdentity, fence: Fence, *, child: str, title: str, queue: str, priority: int | None, items: str
) -> Call[str]:
    """Create a child task of one item and record the call, in one commit. `items`: JSON text, as in `create_task`.

    `priority` None: its parent's, as the tenant always is.
    Returns the child's id: the one recorded, if the call was. Raises LeaseLost, TaskCancelled; TaskExists: if a task
    that is not this call's has the id.
    """
    return Call(
        "SELECT agentos.spawn($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::integer, $8::integer,"
        " $9::text, $10::text, $11::text, $12::text, $13::integer, $14::text) AS child",
        (
            call.key, call.task_id, fence.item_id, fence.worker_id, fence.token, call.call_key, call.ordinal, call.nth,
            call.arguments, child, title, queue, priority, items,
        ),
        lambda rows: str(rows[0]["child"]),
    )  # fmt: skip


def answer(
    task_id: str, approved: bool, by: str, *, question: str | None = None, option: str | None = None,
    shown_sha256: str | None = None,
) -> Call[str]:  # fmt: skip
    """Answer what the task asks; its item is ready again. Returns the question's id.

    `question`: its id or how that begins, default the only one that is open. `shown_sha256`: of what the person saw.
    Raises NotRetryable: if nothing waits for this answer. SeveralQuestions, StaleAnswer, UnknownOption, UnknownTask.
    """
    return Call(
        "SELECT agentos.answer($1::text, $2::text, $3::boolean, $4::text, $5::text, $6::text) AS question",
        (task_id, question, approved, option, by, shown_sha256),
        lambda rows: str(rows[0]["question"]),
    )


def send_signal(task_id: str, name: str, payload: str, signal_id: UUID) -> Call[tuple[int, ...]]:
    """Send a signal; `payload` is JSON text. Kept until a wait takes it. Returns the items woken.

    Said again with the same `signal_id` it is there once. Raises UnknownTask; TaskFinished: if the task has ended.
    """
    return Call(
        "SELECT agentos.signal($1::text, $2::text, $3::text, $4::uuid) AS woken",
        (task_id, name, seal(payload), signal_id),
        lambda rows: tuple(rows[0]["woken"]),
    )


def repair_waits(limit: int = 1000) -> Call[tuple[int, ...]]:
    """End parked waits for which a signal is there. Returns the items woken."""
    return Call("SELECT agentos.repair_waits($1::integer) AS woken", (limit,), lambda rows: tuple(rows[0]["woken"]))
