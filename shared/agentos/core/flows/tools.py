"""One tool call: execute it once, replay it, repair it, or find out what became of it.

```
begin ─ execute ─▶ run ─▶ finished (or failed: runs again next time)
      ─ finished ▶ its `produces` hold? replay : safe to repeat? run again (repaired) : PostconditionFailed
      ─ doubt ───▶ retry | probe | ask (parked for a person) | InDoubt
      ─ running ─▶ wait, ask again
```
"""

import enum
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from agentos.core.evidence import Evidence, PackVerdict
from agentos.core.flows.doubt import Branches, ask_person, note_doubt
from agentos.core.flows.patience import growing_waits, insist_as, insist_on_record
from agentos.core.flows.results import Packed, message_of, pack, refusal_in
from agentos.core.lease import Lease
from agentos.core.tracing.step import mark
from agentos.store.calls.items import Fence
from agentos.store.calls.ledger import (
    CallIdentity,
    LedgerReply,
    OnDoubt,
    ledger_begin,
    ledger_finish,
    ledger_resume,
)
from agentos.store.canonical import canonical_text, loads
from agentos.store.counts import counts
from agentos.store.errors import InDoubt, InvalidInput, PostconditionFailed
from agentos.store.run import Flow, Sleep, find_out, invoke

TOOL_EXPIRES_S = 30 * 86400.0
"""Seconds for which a record is replayed to callers without a lease: 30 days."""

Verify = Callable[[Sequence[Evidence], str], PackVerdict]
"""Checks claims; the text says whose they are, for the log of verdicts."""
Produces = Sequence[Evidence] | Callable[[Any], Sequence[Evidence]]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a tool is told. Pass `idempotency_key` on to whoever can refuse a second call; `execution` counts from 1."""

    idempotency_key: str
    repair: bool
    execution: int

    @property
    def headers(self) -> dict[str, str]:
        """For tools that speak HTTP: {"Idempotency-Key": ...}, which many services take to refuse a second call."""
        return {"Idempotency-Key": self.idempotency_key}


@dataclass(frozen=True, slots=True)
class Done:
    """A probe's answer: the call in doubt was done, and this is its result."""

    result: Any


class ProbeAnswer(enum.Enum):
    """A probe's other answers: it was not done (run it), or it cannot be found out (`InDoubt`)."""

    NOT_DONE = "not done"
    UNKNOWN = "unknown"


NOT_DONE = ProbeAnswer.NOT_DONE
UNKNOWN = ProbeAnswer.UNKNOWN


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """How a tool wants its calls treated. `on_doubt`: retry, probe, ask or fail. `probe(call)` or `probe(call,
    arguments)`, sync or async, answers Done(result), NOT_DONE or UNKNOWN; what raises is UNKNOWN, and then `on_unknown`
    decides: ask or fail. `produces`: evidence that must hold for a replay, or a function from the
    result to it. `safe_to_repeat` (default: `on_doubt == "retry"`) lets a lost product be made again. `expires_s`
    counts for callers without a lease only. `failure(result)`: the error that a result stands for, if any; recorded as
    if the tool had raised it.
    """

    on_doubt: OnDoubt = "fail"
    probe: Callable[..., Any] | None = None
    produces: Produces = ()
    safe_to_repeat: bool | None = None
    expires_s: float = TOOL_EXPIRES_S
    failure: Callable[[Any], Exception | None] | None = None
    on_unknown: Literal["ask", "fail"] = "fail"

    def __post_init__(self) -> None:
        """Raises InvalidInput: if `on_doubt` is none of the four, or `probe` lacks its function."""
        if self.on_doubt not in ("retry", "probe", "ask", "fail"):
            raise InvalidInput(f"on_doubt={self.on_doubt!r} is not known", hint="use 'retry', 'probe', 'ask' or 'fail'")
        if self.on_unknown not in ("ask", "fail"):
            raise InvalidInput(f"on_unknown={self.on_unknown!r} is not known", hint="use 'ask' or 'fail'")
        if self.on_doubt == "probe" and self.probe is None:
            raise InvalidInput("on_doubt='probe' needs a probe", hint="pass probe=function that finds out")

    @property
    def repeats_safely(self) -> bool:
        """Whether the call may be executed again when the world has lost what it produced."""
        return self.on_doubt == "retry" if self.safe_to_repeat is None else self.safe_to_repeat

    @property
    def asks(self) -> bool:
        """Whether a person is asked about what nothing else can tell."""
        return self.on_doubt == "ask" or (self.on_doubt == "probe" and self.on_unknown == "ask")


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A call's result, and whether it was executed now, replayed from the record, or executed again as a repair."""

    result: dict[str, Any]
    replayed: bool
    repaired: bool


_unanswered: set[UUID] = set()
"""Call tokens under which this process began and got no answer: what is recorded of them was never executed."""
_unrecorded: set[UUID] = set()
"""Call tokens of executions of this process that ended without a record: in doubt, though their process lives."""


def call_tool(
    identity: CallIdentity, lease: Lease | None, worker_id: int, policy: ToolPolicy, execute: Callable[[ToolCall], Any],
    *, verify: Verify, force: bool = False, branches: Branches | None = None,
) -> Flow[ToolOutcome]:  # fmt: skip
    """Execute the call or replay it. `worker_id`: the lease's worker, or this process's guest. `branches`: the calls
    that the caller's item makes at the same time.

    Raises whatever `execute` raises (recorded as failed: it runs again next time).
    Raises InDoubt, PostconditionFailed: if going on would guess. LeaseLost, TaskCancelled: with a lease. Parked: with a
    lease, when a person is asked; without one that is InDoubt too.
    Raises InvalidValue, ValueTooLarge: if the result cannot be stored; the call counts as finished all the same.
    """
    if lease is not None and identity.item_id != lease.fence.item_id:
        identity = identity._replace(item_id=lease.fence.item_id)
    call = _ToolRun(identity, lease, worker_id, policy, execute, verify, branches or Branches())
    waits = growing_waits()
    while True:
        reply = yield from call.begin(force)
        match reply.verdict:
            case "execute":
                return (yield from call.run(reply, repair=False))
            case "running":
                yield Sleep(next(waits))
                continue
            case "finished":
                outcome = yield from call.replay(reply)
            case _:
                outcome = yield from call.resolve(reply)
        if outcome is not None:
            if outcome.replayed:
                counts.tool_calls.add(identity.tool_name, "replayed")
                mark(replayed=True)
            return outcome


def told(fn: Callable[..., Any], *what: Any) -> tuple[Any, ...]:
    """As many of `what` as `fn` must be given: one without parameters, or with defaults only, gets none."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # some functions written in C do not tell
        return ()
    needed = [each for each in parameters if each.kind in _POSITIONAL and each.default is each.empty]
    return what[: len(needed)]


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class _ToolRun:
    identity: CallIdentity
    lease: Lease | None
    worker_id: int
    policy: ToolPolicy
    execute: Callable[[ToolCall], Any]
    verify: Verify
    branches: Branches

    @property
    def fence(self) -> Fence | None:
        return self.lease.fence if self.lease else None

    def begin(self, force: bool) -> Flow[LedgerReply]:
        claims = () if callable(self.policy.produces) else self.policy.produces
        produces = canonical_text([each.as_json() for each in claims], what="produces") if claims else "[]"
        token = uuid4()
        ask = ledger_begin(
            self.identity, self.fence, self.worker_id, on_doubt=self.policy.on_doubt, force=force,
            produces=produces, expires_s=self.policy.expires_s, call_token=token,
        )  # fmt: skip
        reply = yield from insist_as(token, ask, _unanswered)
        if reply.verdict == "running" and reply.call_token in _unrecorded:
            return reply._replace(verdict="doubt")
        if reply.verdict == "running" and reply.call_token in _unanswered:
            again = yield from self._resume(reply, repair=False)
            _unanswered.discard(reply.call_token)
            return again
        return reply

    def _resume(self, reply: LedgerReply, *, repair: bool) -> Flow[LedgerReply]:
        assert reply.call_token is not None  # noqa: S101  every verdict but the first names its execution
        token = uuid4()
        ask = ledger_resume(
            self.identity.key, reply.call_token, self.fence, self.worker_id, repair=repair,
            expires_s=self.policy.expires_s, next_token=token,
        )  # fmt: skip
        return (yield from insist_as(token, ask, _unanswered))

    def run(self, reply: LedgerReply, *, repair: bool) -> Flow[ToolOutcome]:
        token = reply.call_token
        assert token is not None  # noqa: S101
        this = ToolCall(reply.idempotency_key or self.identity.key, repair, reply.executions or 1)
        packed: Packed | None = None
        try:
            result = yield from invoke(self.execute, this)
            packed = pack(result)
            if self.policy.failure is not None and (failure := self.policy.failure(result)):
                raise failure
        except Exception as exc:
            counts.tool_calls.add(self.identity.tool_name, "failed")
            yield from self._finish(token, packed, message_of(exc))
            raise
        except BaseException:  # cancelled or interrupted: what it did is not known, and nobody here goes on with it
            _unrecorded.add(token)
            raise
        yield from self._finish(token, packed, None)
        counts.tool_calls.add(self.identity.tool_name, "repaired" if repair else "executed")
        mark(repaired=repair or None, execution=this.execution)
        if packed.refusal is not None:
            raise packed.refusal
        return ToolOutcome(loads(packed.text), replayed=False, repaired=repair)

    def _finish(self, token: UUID, packed: Packed | None, error: str | None) -> Flow[bool]:
        record = ledger_finish(
            self.identity.key, token, self.fence, self.worker_id, error=error,
            result=packed.text if packed else None, exit_code=packed.exit_code if packed else None,
        )  # fmt: skip
        try:
            return (yield from insist_on_record(record))
        except BaseException:
            _unrecorded.add(token)
            raise

    def replay(self, reply: LedgerReply) -> Flow[ToolOutcome | None]:
        if refusal := refusal_in(reply.result):
            raise refusal
        verdict = yield from self._check(reply)
        if verdict is None or verdict.holds:
            return ToolOutcome(reply.result, replayed=True, repaired=False)
        if not self.policy.repeats_safely:
            raise PostconditionFailed(
                f"the recorded call {self._name()} cannot be replayed: {verdict.reason}",
                hint="restore what it produced, or declare the tool safe to repeat (safe_to_repeat=True)",
            )
        again = yield from self._resume(reply, repair=True)
        return (yield from self.run(again, repair=True)) if again.verdict == "execute" else None

    def _check(self, reply: LedgerReply) -> Flow[PackVerdict | None]:
        declared = self.policy.produces
        evidence = declared(reply.result) if callable(declared) else declared
        evidence = evidence or [Evidence.from_json(each, stored=True) for each in reply.produces or ()]
        if not evidence:
            return None
        verdict: PackVerdict = yield from invoke(self.verify, evidence, self._name())
        return verdict

    def resolve(self, reply: LedgerReply) -> Flow[ToolOutcome | None]:
        assert reply.call_token is not None  # noqa: S101
        answer, why = yield from self._probe(reply)
        if isinstance(answer, Done):
            packed = pack(answer.result)
            recorded = yield from self._finish(reply.call_token, packed, None)
            _unrecorded.discard(reply.call_token)
            return ToolOutcome(loads(packed.text), replayed=True, repaired=False) if recorded else None
        if answer is NOT_DONE:
            again = yield from self._resume(reply, repair=False)
            return (yield from self.run(again, repair=False)) if again.verdict == "execute" else None
        began = f" at {reply.begun_at:%Y-%m-%d %H:%M:%S %Z}" if reply.begun_at else ""
        task_id = self.identity.task_id
        counts.tool_calls.add(self.identity.tool_name, "in_doubt")
        mark(in_doubt=True)
        message = f"the call {self._name()} of task {task_id} was begun{began} and never finished{why}"
        if self.policy.asks and self.lease is not None:
            yield from ask_person(reply.call_token, self.identity, self.lease, message, self.branches)
            return None
        if not (yield from note_doubt(reply.call_token, self.identity, self.lease, self.worker_id, message)):
            return None
        raise InDoubt(
            message,
            hint=f"find out whether it happened and say so: agentos resolve {task_id} --done [RESULT] (or --not-done);"
            " then run it again; or declare on_doubt='retry' if it may run again, 'probe' with a function that finds"
            " out, 'ask' to be asked",
        )

    def _probe(self, reply: LedgerReply) -> Flow[tuple[Any, str]]:
        """The answer, and what there is to say about one that does not help."""
        probe = self.policy.probe
        if self.policy.on_doubt == "retry":
            return NOT_DONE, ""
        if self.policy.on_doubt != "probe" or probe is None:
            return UNKNOWN, ""
        call = ToolCall(reply.idempotency_key or self.identity.key, repair=False, execution=reply.executions or 1)
        try:
            answer = yield from find_out(probe, *told(probe, call, loads(self.identity.arguments)))
        except Exception as exc:
            return UNKNOWN, f"; its probe raised {message_of(exc)}"
        if answer is UNKNOWN:
            return UNKNOWN, "; its probe could not find out"
        return answer, f"; its probe answered {answer!r:.200}, not Done, NOT_DONE or UNKNOWN"

    def _name(self) -> str:
        shown = self.identity.arguments
        return f"{self.identity.tool_name}({shown if len(shown) <= 120 else shown[:120] + '…'})"
