"""The record of model outputs: begin, finish, discard, abandon, invalidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

from agentos.store.calls.items import Fence
from agentos.store.canonical import loads
from agentos.store.codec import codecs, seal, seal_body
from agentos.store.run import Call

Verdict = Literal["ready", "generate", "busy", "wait", "exceeded", "parked"]


@dataclass(frozen=True, slots=True)
class PromptIdentity:
    """Which output this is. `key`: sha256 of operation_type, prompt, model, task_id (and sample). `own_key`: of the
    task's own record, where `key` is one that other tasks share. `keep` false: the output is not recorded. `asked`: the
    request in its canonical form, None if it is not to be kept.
    """

    key: str
    task_id: str
    operation_type: str
    model: str
    prompt_sha256: str
    preview: str
    own_key: str | None = None
    keep: bool = True
    asked: Any = None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as it is kept. `parts`: names of its large values; `bodies`: of those that may not be stored yet."""

    text: str
    parts: Sequence[str] = ()
    bodies: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may come to at most. `cost` None: its model has no price."""

    tokens: int = 0
    cost: Decimal | None = Decimal(0)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call came to. None: not known."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CacheReply:
    """`ready` with the output; `generate`: the caller does; `busy`: somebody alive does; `wait`: calls in flight hold
    the budget; `exceeded`, `parked`: the budget refuses, with why as the output. `tokens`: that `ready` saved.
    """

    verdict: Verdict
    call_token: UUID | None
    output: Any
    generations: int
    tokens: int = 0


def cache_begin(
    prompt: PromptIdentity, fence: Fence | None, worker_id: int, expires_s: float, *, call_token: UUID | None = None,
    estimate: Estimate | None = None, request: StoredRequest | None = None,
) -> Call[CacheReply]:  # fmt: skip
    """Ask for an output. `call_token`: as in `ledger_begin`. `estimate`: what a budget of the task reserves. `request`:
    to be kept with the call.

    Raises LeaseLost, TaskCancelled: with a fence. UnknownTask: without one. PartsMissing: if a part of the request is
    not stored.
    """
    estimate = estimate or Estimate()

    def read(rows: Any) -> CacheReply:
        row = rows[0]
        output = None if row["output"] is None else loads(row["output"])
        return CacheReply(row["verdict"], row["call_token"], output, row["generations"], row["tokens"] or 0)

    kept = _sealed(request) if request else _NONE
    return Call(
        "SELECT * FROM agentos.cache_begin($1::text, $2::text, $3::bigint, $4::bigint, $5::uuid, $6::text, $7::text,"
        " $8::text, $9::text, $10::float8, $11::uuid, $12::text, $13::bigint, $14::numeric, $15::text, $16::text[],"
        " $17::text[], $18::bytea[])",
        (
            prompt.key, prompt.task_id, fence.item_id if fence else None, worker_id, fence.token if fence else None,
            prompt.operation_type, prompt.model, prompt.prompt_sha256, "" if codecs() else prompt.preview,
            float(expires_s),
            call_token or uuid4(), prompt.own_key, estimate.tokens, estimate.cost, *kept,
        ),
        read,
    )  # fmt: skip


def _sealed(request: StoredRequest) -> tuple[str, list[str], list[str], list[bytes]]:
    bodies = [seal_body(body) for body in request.bodies.values()]
    return seal(request.text), list(request.parts), list(request.bodies), bodies


_NONE: tuple[None, list[str], list[str], list[bytes]] = (None, [], [], [])


def cache_busy(key: str, call_token: UUID) -> Call[bool]:
    """Whether the generation that somebody waits for is under way. Locks nothing."""
    return Call(
        "SELECT agentos.cache_busy($1::text, $2::uuid) AS busy", (key, call_token), lambda rows: bool(rows[0]["busy"])
    )


def cache_finish(
    prompt: PromptIdentity, call_token: UUID, fence: Fence | None, worker_id: int, output: str,
    spent: Spent = Spent(),
) -> Call[bool]:  # fmt: skip
    """Store the output (JSON text) and what it cost. False: another generator took over and its output counts.

    Raises LeaseLost: with a fence.
    """
    return Call(
        "SELECT agentos.cache_finish($1::text, $2::uuid, $3::bigint, $4::bigint, $5::uuid, $6::text,"
        " $7::integer, $8::integer, $9::text, $10::numeric, $11::text) AS stored",
        (
            prompt.key, call_token, fence.item_id if fence else None, worker_id, fence.token if fence else None,
            seal(output),
            spent.prompt_tokens, spent.completion_tokens, prompt.task_id, spent.cost, prompt.own_key,
        ),
        lambda rows: bool(rows[0]["stored"]),
    )  # fmt: skip


def cache_discard(prompt: PromptIdentity, call_token: UUID, spent: Spent) -> Call[None]:
    """It was paid and is not kept. May be said again: it counts once."""
    return Call(
        "SELECT agentos.cache_discard($1::text, $2::uuid, $3::text, $4::text, $5::integer, $6::integer, $7::numeric)",
        (
            prompt.key, call_token, prompt.task_id, prompt.model, spent.prompt_tokens, spent.completion_tokens,
            spent.cost,
        ),
        lambda _: None,
    )  # fmt: skip


def cache_abandon(key: str, call_token: UUID) -> Call[None]:
    """The generator raised: whoever waits generates next."""
    return Call("SELECT agentos.cache_abandon($1::text, $2::uuid)", (key, call_token), lambda _: None)


def cache_invalidate(key: str) -> Call[bool]:
    """Forget an output. False: there was none."""
    return Call("SELECT agentos.cache_invalidate($1::text) AS gone", (key,), lambda rows: bool(rows[0]["gone"]))
