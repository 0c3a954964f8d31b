"""One model output: taken from the cache, waited for while somebody alive generates it, or generated and paid once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from agentos.core.flows.patience import growing_waits, insist, insist_as
from agentos.core.lease import Lease
from agentos.core.llm import Completion
from agentos.core.logs import get_logger
from agentos.store.calls.cache import CacheReply, PromptIdentity, cache_abandon, cache_begin, cache_finish
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text, loads
from agentos.store.errors import AgentOSError
from agentos.store.run import Flow, Sleep, do, invoke

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Generated:
    """An output as the cache keeps it (of a `Completion`: its text), and whether it was there already."""

    output: Any
    cached: bool


_given_up: set[UUID] = set()
"""Call tokens of generations of this process that have ended, or never began, while their record may not say so."""


def generate_once(
    prompt: PromptIdentity, lease: Lease | None, worker_id: int, generate: Callable[[], Any], *, expires_s: float
) -> Flow[Generated]:
    """The output for `prompt`; `generate` is called if nobody has it and nobody alive makes it. It is never cached
    that `generate` raised. `expires_s` counts for callers without a lease only.

    Raises whatever `generate` raises; InvalidValue, ValueTooLarge: if its output cannot be stored.
    Raises LeaseLost, TaskCancelled: with a lease. UnknownTask: without one.
    """
    fence = lease.fence if lease else None
    waits = growing_waits()
    while True:
        reply = yield from _begin(prompt, fence, worker_id, expires_s)
        if reply.verdict == "ready":
            return Generated(reply.output, cached=True)
        if reply.verdict == "generate" and reply.call_token is not None:
            output = yield from _generate(prompt.key, reply.call_token, fence, worker_id, generate)
            if output is not None:
                return Generated(output.value, cached=False)
        else:
            yield Sleep(next(waits))


@dataclass(frozen=True, slots=True)
class _Output:
    value: Any


def _begin(prompt: PromptIdentity, fence: Fence | None, worker_id: int, expires_s: float) -> Flow[CacheReply]:
    token = uuid4()
    ask = cache_begin(prompt, fence, worker_id, expires_s, call_token=token)
    reply = yield from insist_as(token, ask, _given_up)
    if reply.verdict == "busy" and reply.call_token in _given_up:  # it looks alive, since its process is: us
        yield from insist(cache_abandon(prompt.key, reply.call_token))
        _given_up.discard(reply.call_token)
    return reply


def _generate(
    key: str, token: UUID, fence: Fence | None, worker_id: int, generate: Callable[[], Any]
) -> Flow[_Output | None]:
    """None: somebody took the generation over, and what they made counts."""
    try:
        made = yield from invoke(generate)
        text, tokens = _stored(made)
        kept = yield from insist(cache_finish(key, token, fence, worker_id, text, *tokens))
    except (Exception, asyncio.CancelledError, KeyboardInterrupt):
        yield from _abandon(key, token)
        raise
    except BaseException:  # such as GeneratorExit: nothing can be asked any more
        _given_up.add(token)
        raise
    return _Output(loads(text)) if kept else None


def _stored(made: Any) -> tuple[str, tuple[int | None, int | None]]:
    if isinstance(made, Completion):
        return canonical_text(made.text, what="the model's output"), (made.prompt_tokens, made.completion_tokens)
    return canonical_text(made, what="the model's output"), (None, None)


def _abandon(key: str, token: UUID) -> Flow[None]:
    _given_up.add(token)
    try:
        yield from do(cache_abandon(key, token))
    except AgentOSError as exc:  # the generator's own error is the news; this process gives it up when it asks again
        log.warning("could not give a generation up", error=exc.message)
    else:
        _given_up.discard(token)
