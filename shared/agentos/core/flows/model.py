"""One model output: taken from the cache, waited for while somebody alive generates it, or generated and paid once."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from agentos.core.flows.patience import growing_waits, insist, insist_as, insist_on_record
from agentos.core.lease import Lease
from agentos.core.llm.completion import Completion
from agentos.core.llm.kept import RequestStore, parted_request
from agentos.core.llm.prices import price_of
from agentos.core.logs import get_logger
from agentos.core.parked import Parked
from agentos.core.tracing.step import mark
from agentos.core.transaction import open_transaction
from agentos.store.calls.cache import (
    CacheReply,
    Estimate,
    PromptIdentity,
    Spent,
    StoredRequest,
    cache_abandon,
    cache_begin,
    cache_busy,
    cache_discard,
    cache_finish,
)
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text, loads
from agentos.store.counts import counts
from agentos.store.errors import AgentOSError, BudgetExceeded, LeaseLost, OutputTruncated, PartsMissing
from agentos.store.parts import Parted
from agentos.store.run import Flow, Sleep, do, invoke

log = get_logger(__name__)

LONGEST_LOOK_S = 1.0
"""Seconds between two looks at a generation of somebody else, at most; a model takes seconds to answer."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An output as the cache keeps it (of a `Completion`: its text), and whether it was there already."""

    output: Any
    cached: bool


_given_up: set[UUID] = set()
"""Call tokens of generations of this process that have ended, or never began, while their record may not say so."""


def generate_once(
    prompt: PromptIdentity, lease: Lease | None, worker_id: int, generate: Callable[[], Any], *, expires_s: float,
    estimate: Estimate | None = None, allow_truncated: bool = False, stored: RequestStore | None = None,
) -> Flow[Generated]:  # fmt: skip
    """The output for `prompt`; `generate` is called if nobody has it and nobody alive makes it. It is never cached
    that `generate` raised, or an output that was cut off. `expires_s` counts for callers without a lease only.

    Raises whatever `generate` raises; InvalidValue, ValueTooLarge: if its output cannot be stored. OutputTruncated: if
    it was cut off and `allow_truncated` is false. BudgetExceeded, Parked: if the task's budget refuses the call.
    Raises LeaseLost, TaskCancelled: with a lease. UnknownTask: without one.
    """
    turn = Turn(
        prompt, lease.fence if lease else None, worker_id, expires_s, estimate, allow_truncated,
        stored or RequestStore(),
    )  # fmt: skip
    while True:
        found = yield from turn.begin()
        if found is not None:
            return found
        try:
            made = yield from _made(generate, allow_truncated=allow_truncated)
            kept = yield from turn.keep(made)
        except BaseException as exc:
            yield from turn.give_up(exc)
            raise
        if kept is not None:
            return kept


def _made(generate: Callable[[], Any], *, allow_truncated: bool) -> Flow[Any]:
    try:
        return (yield from invoke(generate))
    except OutputTruncated as exc:
        if allow_truncated and isinstance(exc.completion, Completion):
            return exc.completion
        raise


@dataclass(slots=True)
class Turn:
    """One caller's way to an output: `begin` until it is there or ours to make; then `keep` or `give_up`."""

    prompt: PromptIdentity
    fence: Fence | None
    worker_id: int
    expires_s: float
    estimate: Estimate | None = None
    allow_truncated: bool = False
    stored: RequestStore = field(default_factory=RequestStore)
    _token: UUID = field(default_factory=uuid4)

    def begin(self) -> Flow[Generated | None]:
        """The output; None: it is for the caller to make. Raises BudgetExceeded, Parked, and as `cache_begin`."""
        waits = growing_waits(LONGEST_LOOK_S)
        request = parted_request(self.prompt)
        while True:
            reply = yield from self._ask_with(request)
            match reply.verdict:
                case "ready":
                    counts.llm_calls.add(self.prompt.model, "saved")
                    counts.llm_tokens.add(self.prompt.model, "saved", amount=reply.tokens)
                    mark(replayed=True, tokens_saved=reply.tokens)
                    return Generated(reply.output, cached=True)
                case "generate":
                    return None
                case "parked":
                    log.info("parked by its budget", reason=refusal_text(reply.output))
                    raise Parked
                case "exceeded":
                    raise _exceeded(self.prompt, reply.output)
            yield Sleep(next(waits))
            while reply.call_token is not None and (
                yield from insist(cache_busy(self.prompt.key, reply.call_token))
            ):  # a look locks nothing, and the crowd that waits for a slow model is large
                yield Sleep(next(waits))

    def _ask_with(self, request: Parted | None) -> Flow[CacheReply]:
        if request is None:
            return (yield from self._ask(None))
        try:
            reply = yield from self._ask(self.stored.form(request, whole=False))
        except PartsMissing:  # what this attempt took for stored was rolled back, or collected
            reply = yield from self._ask(self.stored.form(request, whole=True))
        if reply.verdict == "generate" and open_transaction() is None:  # a rollback would make it wrong
            self.stored.known.update(request.parts)
        return reply

    def _ask(self, request: StoredRequest | None) -> Flow[CacheReply]:
        self._token = token = uuid4()
        ask = cache_begin(
            self.prompt, self.fence, self.worker_id, self.expires_s, call_token=token, estimate=self.estimate,
            request=request,
        )  # fmt: skip
        reply = yield from insist_as(token, ask, _given_up)
        if reply.verdict == "busy" and reply.call_token in _given_up:  # it looks alive, since its process is: us
            yield from insist(cache_abandon(self.prompt.key, reply.call_token))
            _given_up.discard(reply.call_token)
        return reply

    def keep(self, made: Any) -> Flow[Generated | None]:
        """Record what was made, with what it cost. None: somebody took the generation over, and what they make counts.

        Raises OutputTruncated: it was paid and is not kept. InvalidValue, ValueTooLarge, LeaseLost.
        """
        output, spent = _output(made), spent_on(self.prompt.model, made)
        _count(self.prompt.model, spent)
        if isinstance(made, Completion):
            mark(gen_ai__response__model=made.model, gen_ai__response__finish_reasons=[made.finish_reason])
        if isinstance(made, Completion) and made.truncated:
            yield from insist_on_record(cache_discard(self.prompt, self._token, spent))
            if not self.allow_truncated:
                raise _truncated(made)
            return Generated(output, cached=False)
        text = canonical_text(output, what="the model's output")
        if not self.prompt.keep:
            yield from insist_on_record(cache_discard(self.prompt, self._token, spent))
            return Generated(loads(text), cached=False)
        try:
            kept = yield from insist_on_record(
                cache_finish(self.prompt, self._token, self.fence, self.worker_id, text, spent)
            )
        except LeaseLost:
            yield from insist_on_record(cache_discard(self.prompt, self._token, spent))
            raise
        if kept:
            return Generated(loads(text), cached=False)
        yield from insist_on_record(cache_discard(self.prompt, self._token, spent))
        return None

    def give_up(self, exc: BaseException) -> Flow[None]:
        """The generation ended by `exc`: nothing of it is kept but, where it says so, what it cost."""
        token = self._token
        _given_up.add(token)
        if not isinstance(exc, Exception | asyncio.CancelledError | KeyboardInterrupt):
            return  # such as GeneratorExit: nothing can be asked any more
        try:
            if isinstance(exc, OutputTruncated) and isinstance(exc.completion, Completion):
                spent = spent_on(self.prompt.model, exc.completion)
                _count(self.prompt.model, spent)
                yield from do(cache_discard(self.prompt, token, spent))
            yield from do(cache_abandon(self.prompt.key, token))
        except AgentOSError as trouble:  # the generator's own error is the news; this process gives it up when it asks
            log.warning("could not give a generation up", error=trouble.message)
        else:
            _given_up.discard(token)


def _count(model: str, spent: Spent) -> None:
    counts.llm_calls.add(model, "paid")
    counts.llm_tokens.add(model, "paid", amount=(spent.prompt_tokens or 0) + (spent.completion_tokens or 0))
    mark(
        gen_ai__usage__input_tokens=spent.prompt_tokens, gen_ai__usage__output_tokens=spent.completion_tokens,
        cost=None if spent.cost is None else float(spent.cost),
    )  # fmt: skip


def spent_on(model: str, made: Any) -> Spent:
    """What a call came to: by its own word, or by its tokens and the model's price."""
    if not isinstance(made, Completion):
        return Spent()
    price, cost = price_of(model), made.cost
    if cost is None and price is not None:
        cost = price.of(made.prompt_tokens, made.completion_tokens)
    return Spent(made.prompt_tokens, made.completion_tokens, cost)


def _output(made: Any) -> Any:
    if not isinstance(made, Completion):
        return made
    return {"content": made.text, "tool_calls": list(made.tool_calls)} if made.tool_calls else made.text


def _truncated(made: Completion) -> OutputTruncated:
    error = OutputTruncated(
        f"the output of {made.model} was cut off after {made.completion_tokens} tokens (finish_reason: "
        f"{made.finish_reason})",
        hint="allow a longer output, ask for a shorter one, or take what there is with allow_truncated=True",
        detail="It was paid, and is not cached.",
    )
    error.completion = made
    return error


def refusal_text(refusal: Mapping[str, Any]) -> str:
    """A budget's refusal in words: which limit, what is spent, what was asked."""
    limit, asked = refusal["limit"], refusal["asked"]
    told = f"{limit} of task {refusal['task_id']} is {_short(refusal['most'])}, {_short(refusal['spent'])} is spent"
    if asked is None:
        return f"{told}, and the model of the next call has no price"
    return told if limit == "max_wall_s" else f"{told}, and the next call may need {_short(asked)}"


def _short(number: str) -> str:
    exact = Decimal(number)
    return f"{exact.normalize():f}" if exact else "0"


def _exceeded(prompt: PromptIdentity, refusal: Mapping[str, Any]) -> BudgetExceeded:
    task, flag = refusal["task_id"], refusal["limit"].removeprefix("max_").replace("_s", "-s")
    fix = f"raise it: agentos budget {task} --add-{flag} N, then: agentos retry {prompt.task_id}"
    if refusal["asked"] is None:
        fix = f"give {prompt.model!r} a price in AGENTOS_LLM_PRICES, or use max_tokens"
    return BudgetExceeded(f"the budget does not allow this call: {refusal_text(refusal)}", hint=fix)
