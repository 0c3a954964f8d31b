"""The record of model outputs: begin, finish, abandon, invalidate."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from agentos.store.calls.items import Fence
from agentos.store.canonical import loads
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class PromptIdentity:
    """Which output this is. `key`: sha256 of operation_type, prompt, model, task_id (and sample)."""

    key: str
    task_id: str
    operation_type: str
    model: str
    prompt_sha256: str
    preview: str


@dataclass(frozen=True, slots=True)
class CacheReply:
    """`ready` with the output; `generate`: the caller does; `busy`: somebody alive does."""

    verdict: Literal["ready", "generate", "busy"]
    call_token: UUID | None
    output: Any
    generations: int


def cache_begin(
    prompt: PromptIdentity, fence: Fence | None, worker_id: int, expires_s: float, *, call_token: UUID | None = None
) -> Call[CacheReply]:
    """Ask for an output. `call_token`: as in `ledger_begin`.

    Raises LeaseLost, TaskCancelled: with a fence. UnknownTask: without one.
    """

    def read(rows: Any) -> CacheReply:
        row = rows[0]
        output = None if row["output"] is None else loads(row["output"])
        return CacheReply(row["verdict"], row["call_token"], output, row["generations"])

    return Call(
        "SELECT * FROM agentos.cache_begin($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::text,"
        " $8::text, $9::text, $10::float8, $11::uuid)",
        (
            prompt.key, prompt.task_id, fence.item_id if fence else None, worker_id, fence.token if fence else None,
            prompt.operation_type, prompt.model, prompt.prompt_sha256, prompt.preview, float(expires_s),
            call_token or uuid4(),
        ),
        read,
    )  # fmt: skip


def cache_finish(
    key: str, call_token: UUID, fence: Fence | None, worker_id: int, output: str, prompt_tokens: int | None,
    completion_tokens: int | None,
) -> Call[bool]:  # fmt: skip
    """Store the output (JSON text). False: another generator took over and its output counts."""
    return Call(
        "SELECT agentos.cache_finish($1::text, $2::uuid, $3::bigint, $4::bigint, $5::uuid, $6::text,"
        " $7::integer, $8::integer)"
        " AS stored",
        (
            key, call_token, fence.item_id if fence else None, worker_id, fence.token if fence else None, output,
            prompt_tokens, completion_tokens,
        ),
        lambda rows: bool(rows[0]["stored"]),
    )  # fmt: skip


def cache_abandon(key: str, call_token: UUID) -> Call[None]:
    """The generator raised: whoever waits generates next."""
    return Call("SELECT agentos.cache_abandon($1::text, $2::uuid)", (key, call_token), lambda _: None)


def cache_invalidate(key: str) -> Call[bool]:
    """Forget an output. False: there was none."""
    return Call("SELECT agentos.cache_invalidate($1::text) AS gone", (key,), lambda rows: bool(rows[0]["gone"]))
