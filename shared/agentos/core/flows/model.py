"""One model output: taken from the cache, waited for while somebody alive generates it, or generated and paid once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentos.core.flows.patience import OUTAGE_WAITS_S, growing_waits, insist
from agentos.core.lease import Lease
from agentos.core.llm import Completion
from agentos.core.logs import get_logger
from agentos.store.calls.cache import CacheReply, PromptIdentity, cache_abandon, cache_begin, cache_finish
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text, loads
from agentos.store.errors import AgentOSError, DatabaseUnavailable
from agentos.store.run import Flow, Sleep, do, invoke

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Generated:
    """An output as the cache keeps it (of a `Completion`: its text), and whether it was there already."""

    output: Any
    cached: bool


_generating: set[UUID] = set()
"""Call tokens of generations that this process runs now."""


def generate_once(
    prompt: PromptIdentity, lease: Lease | None, worker_id: int, generate: Callable[[], Any], *, expires_s: float
) -> Flow[Generated]:
    """The output for `prompt`; `generate` is called if nobody has it and nobody alive makes it. It is never cached
    that `generate` raised. `expires_s` counts for callers without a lease only.

    Raises whatever `generate` raises; InvalidValue, ValueTooLarge: if its output cannot be stored.
    Raises LeaseLost, TaskCancelled: with a lease. UnknownTask: without one.
    """
    fence = lease.fence if lease else None
    ask = cache_begin(prompt, fence, worker_id, expires_s)
    waits = growing_waits()
    while True:
        reply = yield from _begin(prompt.key, ask)
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


def _begin(key: str, ask: Any) -> Flow[CacheReply]:
    """A begin whose reply was lost looks like a generator that lives and never ends: it is us, so it is taken back."""
    unanswered = False
    for wait_s in (*OUTAGE_WAITS_S, None):
        try:
            reply: CacheReply = yield from do(ask)
        except DatabaseUnavailable:
            if wait_s is None:
                raise
            unanswered = True
            yield Sleep(wait_s)
            continue
        if unanswered and reply.verdict == "busy" and reply.call_token and reply.call_token not in _generating:
            yield from do(cache_abandon(key, reply.call_token))
        return reply
    raise AssertionError("the last try returns or raises")


def _generate(
    key: str, token: UUID, fence: Fence | None, worker_id: int, generate: Callable[[], Any]
) -> Flow[_Output | None]:
    """None: somebody took the generation over, and what they made counts."""
    _generating.add(token)
    try:
        made = yield from invoke(generate)
        text, tokens = _stored(made)
        kept = yield from insist(cache_finish(key, token, fence, worker_id, text, *tokens))
    except (Exception, asyncio.CancelledError, KeyboardInterrupt):
        yield from _abandon(key, token)
        raise
    finally:
        _generating.discard(token)
    return _Output(loads(text)) if kept else None


def _stored(made: Any) -> tuple[str, tuple[int | None, int | None]]:
    if isinstance(made, Completion):
        return canonical_text(made.text, what="the model's output"), (made.prompt_tokens, made.completion_tokens)
    return canonical_text(made, what="the model's output"), (None, None)


def _abandon(key: str, token: UUID) -> Flow[None]:
    try:
        yield from do(cache_abandon(key, token))
    except AgentOSError as exc:  # the generator's own error is the news; others wait until this process is gone
        log.warning("could not give a generation up", error=exc.message)
