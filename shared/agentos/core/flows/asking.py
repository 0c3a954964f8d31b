"""A running item asks a model: under its lease, with its task's budget, once per content."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentos.core.flows.model import Turn, generate_once
from agentos.core.llm.prices import price_of
from agentos.core.llm.request import ModelRequest
from agentos.core.llm.stream import OnToken, gathering
from agentos.store.calls.cache import Estimate, PromptIdentity
from agentos.store.run import Flow

if TYPE_CHECKING:
    from agentos.core.scope import ItemScope

EXPIRES_S = 7 * 86_400.0
"""Seconds for which an output is used for tasks that did not ask for it before."""


def ask_model(
    scope: "ItemScope", request: ModelRequest, generate: Callable[[], Any], *, on_token: OnToken | None = None,
    allow_truncated: bool = False, expires_s: float = EXPIRES_S,
) -> Flow[Any]:  # fmt: skip
    """The output for `request`, of the record or made by `generate`, which may return chunks; `on_token` gets each.

    Raises as `generate_once`. InvalidInput: if the request's scope is not known.
    """
    identity = identified(scope, request)
    make = gathering(scope.guarded(generate), on_token)
    yield from scope.may_begin()
    with scope.branches:
        made = yield from generate_once(
            identity, scope.lease, scope.lease.fence.worker_id, make, expires_s=expires_s, estimate=estimate(request),
            allow_truncated=allow_truncated, stored=scope.requests,
        )  # fmt: skip
    return made.output


def turn_for(scope: "ItemScope", request: ModelRequest, *, allow_truncated: bool = False) -> Turn:
    """The caller's turn at `request`, for outputs that are handed on while they are made."""
    fence = scope.lease.fence
    return Turn(
        identified(scope, request), fence, fence.worker_id, EXPIRES_S, estimate(request), allow_truncated,
        scope.requests,
    )  # fmt: skip


def identified(scope: "ItemScope", request: ModelRequest) -> PromptIdentity:
    """The identity of the output. A fork shares those of the task that it was made of, and keeps what it used."""
    own = request.identity(scope.task_id)
    if scope.outputs_of is None or request.scope != "task":
        return own
    return replace(own, key=request.identity(scope.outputs_of).key, own_key=own.key)


def estimate(request: ModelRequest) -> Estimate:
    """What the call may come to: its prompt by its size, its answer by the maximum that its parameters set."""
    prompt, completion = request.estimated_tokens()
    price = price_of(request.model)
    return Estimate(prompt + completion, price.of(prompt, completion) if price else None)
