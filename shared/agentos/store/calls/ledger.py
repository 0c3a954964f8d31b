"""The record of tool calls: begin, finish, resume after doubt, history."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

from agentos.store.calls.items import Fence
from agentos.store.canonical import loads
from agentos.store.codec import seal_optional
from agentos.store.run import Call, Together

Verdict = Literal["execute", "finished", "running", "doubt"]
OnDoubt = Literal["retry", "probe", "ask", "fail"]


class CallIdentity(NamedTuple):
    """Which call this is; a tuple, as `ClaimedItem`. `key` is the sha256 of the identity and the idempotency key the
    tool is given.
    """

    key: str
    task_id: str
    item_id: int | None
    tool_name: str
    call_key: str | None
    ordinal: int | None
    nth: int | None
    arguments: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """An unkeyed call that an earlier attempt recorded. `position`: among those made one after the other since the
    item's checkpoint `ordinal`, None if others were open beside it. `arguments`: the first characters of their JSON.
    """

    key: str
    ordinal: int
    position: int | None
    tool_name: str
    arguments: str
    state: str


class LedgerReply(NamedTuple):
    """What the ledger says to somebody who asks to execute; a tuple, as `ClaimedItem`."""

    verdict: Verdict
    call_token: UUID | None
    idempotency_key: str | None
    on_doubt: OnDoubt | None
    result: Any
    produces: Any
    exit_code: int | None
    error: str | None
    begun_at: datetime | None
    finished_at: datetime | None
    executions: int | None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of a task's history of tool calls."""

    tool_name: str
    arguments: Any
    state: str
    result: Any
    exit_code: int | None
    error: str | None
    executions: int
    replays: int
    repairs: int
    item_id: int | None
    call_key: str | None
    begun_at: datetime
    finished_at: datetime | None
    in_doubt: bool


def _json(text: str | None) -> Any:
    return None if text is None else loads(text)


def _reply(rows: Any) -> LedgerReply:
    row = dict(rows[0])
    return LedgerReply(**{**row, "result": _json(row["result"]), "produces": _json(row["produces"])})


def _recorded(_row: Any) -> bool:
    return True


def ledger_begin(
    call: CallIdentity, fence: Fence | None, worker_id: int, *, on_doubt: OnDoubt, produces: str, expires_s: float,
    force: bool = False, call_token: UUID | None = None,
) -> Call[LedgerReply]:  # fmt: skip
    """Ask for the right to execute. `produces`: JSON text, a list of evidence. `worker_id`: the asking process.
    `call_token`: the execution's name, default a new one; asking again with the same one gets the same answer.

    Raises LeaseLost, TaskCancelled: with a fence. UnknownTask: without one.
    """
    call_token = call_token or uuid4()

    def executes(row: Any) -> LedgerReply:
        return LedgerReply(
            "execute", call_token, call.key, on_doubt, None, loads(produces), None, None, row.at, None, 1
        )

    return Call(
        "SELECT * FROM agentos.ledger_begin($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::text,"
        " $8::integer, $9::integer, $10::text, $11::text, $12::text, $13::float8, $14::boolean, $15::uuid,"
        " $16::integer)",
        (
            call.key, call.task_id, call.item_id, worker_id, fence.token if fence else None, call.tool_name,
            call.call_key,
            call.ordinal, call.nth, call.arguments, on_doubt, produces, float(expires_s), force, call_token,
            call.position,
        ),
        _reply,
        Together("ledger_begin", fence, executes, len(call.arguments) + len(produces))
        if fence and call.item_id == fence.item_id and worker_id == fence.worker_id else None,
    )  # fmt: skip


def ledger_resume(
    key: str, call_token: UUID, fence: Fence | None, worker_id: int, *, repair: bool, expires_s: float,
    next_token: UUID | None = None,
) -> Call[LedgerReply]:  # fmt: skip
    """Execute again what was in doubt and is not done, or (repair) what the world has lost. `running`: another did.

    `next_token`: the new execution's name, as `call_token` in `ledger_begin`.
    """
    return Call(
        "SELECT * FROM agentos.ledger_resume($1::text, $2::uuid, $3::bigint, $4::bigint, $5::uuid,"
        " $6::boolean, $7::float8, $8::uuid)",
        (
            key, call_token, fence.item_id if fence else None, worker_id, fence.token if fence else None, repair,
            float(expires_s), next_token or uuid4(),
        ),
        _reply,
    )  # fmt: skip


def ledger_finish(
    key: str, call_token: UUID, fence: Fence | None, worker_id: int, *, result: str | None, exit_code: int | None,
    error: str | None,
) -> Call[bool]:  # fmt: skip
    """The tool returned (`result`: JSON text) or raised (`error`). False: it was recorded before.

    Raises LeaseLost: if the lease is gone or another execution took the call over.
    """
    sealed = seal_optional(result)
    return Call(
        "SELECT agentos.ledger_finish($1::text, $2::uuid, $3::bigint, $4::bigint, $5::uuid, $6::text,"
        " $7::integer, $8::text)"
        " AS done",
        (
            key, call_token, fence.item_id if fence else None, worker_id, fence.token if fence else None,
            sealed, exit_code, error,
        ),
        lambda rows: bool(rows[0]["done"]),
        Together("ledger_finish", fence, _recorded, len(sealed or "") + len(error or ""))
        if fence and worker_id == fence.worker_id else None,
    )  # fmt: skip


def ledger_before(item_id: int, tool_name: str, arguments: str, resumed: int, key: str) -> Call[int | None]:
    """The last checkpoint ordinal below `resumed` at which the item recorded such an unkeyed call, if never since."""
    return Call(
        "SELECT agentos.ledger_before($1::bigint, $2::text, $3::text, $4::integer, $5::text) AS ordinal",
        (item_id, tool_name, arguments, resumed, key),
        lambda rows: rows[0]["ordinal"] if rows else None,
    )


def ledger_recorded(item_id: int, ordinal: int) -> Call[tuple[RecordedCall, ...]]:
    """The item's unkeyed tool calls from its checkpoint `ordinal` on."""
    return Call(
        "SELECT * FROM agentos.ledger_recorded($1::bigint, $2::integer)",
        (item_id, ordinal),
        lambda rows: tuple(RecordedCall(**dict(row)) for row in rows),
    )


def ledger_history(task_id: str, limit: int = 100) -> Call[tuple[LedgerEntry, ...]]:
    """The task's calls, newest first."""

    def read(rows: Any) -> tuple[LedgerEntry, ...]:
        return tuple(
            LedgerEntry(**{**dict(row), "arguments": _json(row["arguments"]), "result": _json(row["result"])})
            for row in rows
        )

    return Call("SELECT * FROM agentos.ledger_history($1::text, $2::integer)", (task_id, limit), read)
