"""A running item, without I/O: what it resumed from, which call comes next, what it may write.

Every method returns a flow. The async `TaskContext` awaits them, the blocking one and `TaskRunner` drive them, so that
a call has the same identity, the same records and the same rules in both worlds.
"""

import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from agentos.core.effect import BeforeEffect, guarded, with_arguments
from agentos.core.evidence import Evidence, EvidencePack, PackVerdict, stamp_pack
from agentos.core.flows.asking import EXPIRES_S, ask_model
from agentos.core.flows.checkpoints import commit, newest_holding
from agentos.core.flows.doubt import Branches
from agentos.core.flows.program import OnChange, Program
from agentos.core.flows.tools import ToolCall, ToolOutcome, ToolPolicy, call_tool
from agentos.core.flows.waits import Answer, approval, park_for
from agentos.core.identity import written_identity
from agentos.core.lease import Lease
from agentos.core.llm.kept import RequestStore
from agentos.core.llm.request import ModelRequest
from agentos.core.logs import get_logger
from agentos.core.process import host, monotonic
from agentos.core.tool import Tool, bash
from agentos.core.tracing.step import submit_step
from agentos.core.transaction import OpenTransaction, open_transaction
from agentos.store.calls import checkpoints, forks, items, ledger
from agentos.store.calls.checkpoints import CheckpointRow, Committed, NewCheckpoint
from agentos.store.calls.items import ClaimedItem, Fence
from agentos.store.calls.ledger import CallIdentity, OnDoubt
from agentos.store.canonical import canonical_text, loads
from agentos.store.counts import counts
from agentos.store.errors import CallBeforeCheckpoint, InvalidCheckpointType, UnknownTool
from agentos.store.run import Flow, do, invoke
from agentos.store.sealed_items import seal_payloads

CHECKPOINT_TYPES = (
    "iteration_start", "iteration_end", "tool_executed", "llm_response", "approval_point", "state_transition",
    "manual_checkpoint", "error_boundary",
)  # fmt: skip

SNAPSHOT_LIMIT = 8 * 1024 * 1024
OFTEN = 4
"""Attempts after which a sleep at the same place is worth a word."""

log = get_logger(__name__)

VerifyRow = Callable[[CheckpointRow], PackVerdict]
VerifyEvidence = Callable[[Sequence[Evidence], str], PackVerdict]


def check_checkpoint_type(checkpoint_type: str) -> str:
    """Raises InvalidCheckpointType: if it is not one of the eight."""
    if checkpoint_type not in CHECKPOINT_TYPES:
        raise InvalidCheckpointType(
            f"Invalid checkpoint_type: {checkpoint_type!r}", hint=f"use one of {', '.join(CHECKPOINT_TYPES)}"
        )
    return checkpoint_type


class ItemScope:
    """One attempt at one item.

    `snapshot` is None until `resume` found a checkpoint of this item that holds. `ordinal` counts the item's
    checkpoints in program order, so that a resumed handler finds exactly the calls made after its checkpoint.
    """

    def __init__(
        self, item: ClaimedItem, lease: Lease, *, verify_row: VerifyRow, verify: VerifyEvidence,
        tools: Mapping[str, Tool] | None = None, before_effect: BeforeEffect | None = None, on_change: OnChange = "ask",
    ) -> None:  # fmt: skip
        self.item = item
        self.lease = lease
        self.snapshot: Any = None
        self.ordinal = 0
        self.resumed_ordinal = 0
        self.resumed_from: int | None = None
        self._resumed_sha256: str | None = None
        self.rejected: tuple[tuple[int, str], ...] = ()
        self.outputs_of: str | None = None
        """Of a fork: the task whose model outputs answer it, too."""
        self._verify_row = verify_row
        self._verify = verify
        self._before_effect = before_effect
        self._on_change = on_change
        self._tools = {"bash": bash} if tools is None else tools
        self.joined: OpenTransaction | None = None
        """A transaction of the caller's own that holds this item's lease row until he ends it."""

    # Made when first asked for: an attempt that calls no tool would pay more for them than for the rest of the scope.

    @functools.cached_property
    def branches(self) -> Branches:
        """Its calls that are open at this moment."""
        return Branches()

    @functools.cached_property
    def program(self) -> Program:
        """Its calls in order, beside those of the attempts before it."""
        return Program(self._on_change)

    @functools.cached_property
    def requests(self) -> RequestStore:
        """What it has stored of its model requests."""
        return RequestStore()

    @functools.cached_property
    def _seen(self) -> defaultdict[tuple[int, str, str], int]:
        return defaultdict(int)

    @functools.cached_property
    def _stored_parts(self) -> set[str]:
        return set()

    @property
    def fence(self) -> Fence:
        """The proof that this attempt holds its item."""
        return self.lease.fence

    @property
    def task_id(self) -> str:
        """The task this item belongs to."""
        return self.item.task_id

    def resume(self) -> Flow[None]:
        """Find the newest checkpoint of this item whose evidence holds here and now; mark newer ones superseded."""
        self.outputs_of = yield from do(forks.outputs_of(self.task_id))
        yield from self._go_on_from_newest()
        self.program.remember((yield from do(ledger.ledger_recorded(self.item.item_id, self.ordinal))))

    def _go_on_from_newest(self) -> Flow[None]:
        found = yield from newest_holding(self.task_id, self.item.item_id, self._verify_row)
        self.rejected = found.rejected
        if found.rejected:
            yield from do(checkpoints.supersede(self.lease.fence, found.rejected))
        if found.row is None:
            return
        self.snapshot = loads(found.row.snapshot_text)
        self.ordinal = self.resumed_ordinal = found.row.ordinal or 0
        self.resumed_from = found.row.sequence_number
        self._resumed_sha256 = found.row.snapshot_sha256
        told = {"sequence_number": found.row.sequence_number, "rejected": len(found.rejected), "host": host()}
        yield from do(checkpoints.note_resume(self.lease.fence, canonical_text(told)))

    def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Flow[Committed]:
        """Commit a checkpoint of this item. Raises InvalidCheckpointType, InvalidValue, ValueTooLarge, LeaseLost."""
        body = canonical_text(snapshot, limit=SNAPSHOT_LIMIT, what="snapshot")
        new = NewCheckpoint(
            task_id=self.task_id, item_id=self.item.item_id, checkpoint_type=check_checkpoint_type(checkpoint_type),
            snapshot=body, snapshot_sha256=_sha256(body.encode()),
            evidence=_evidence_text(evidence) if evidence else NO_EVIDENCE, ordinal=self.ordinal + 1, host=host(),
            workspace=_workspace(), step_id=uuid4(),
        )  # fmt: skip
        transaction = open_transaction(self)
        stored = None if transaction else self._stored_parts  # a rollback would make it wrong: all parts are sent
        began = monotonic()
        committed = yield from commit(new, self.lease, self.lease.fence.worker_id, stored)
        counts.checkpoints.observe(monotonic() - began)
        self._tell_of_circles(new)
        self.ordinal += 1
        if transaction:
            transaction.ordinals += 1
            transaction.steps.append(new.step_id)
        return committed

    def _tell_of_circles(self, new: NewCheckpoint) -> None:
        """The same snapshot again, before the wait that is over was asked for: the handler will wait for it anew. Who
        polls may mean that, so a sleep is told of seldom.
        """
        if self.ordinal != self.resumed_ordinal or new.snapshot_sha256 != self._resumed_sha256:
            return
        attempt = self.item.attempt
        for wait in self.program.unread(self.ordinal):
            if wait.tool_name != "@sleep" or (attempt > OFTEN and attempt & (attempt - 1) == 0):
                log.warning(
                    "it waits in a circle: the same snapshot was checkpointed again, before the wait that is over",
                    reason=f"{wait.tool_name[1:]} {wait.arguments}", attempt=attempt,
                    fix="checkpoint only `if ctx.snapshot is None`, or after the wait (docs/waits.md)",
                )  # fmt: skip

    def take_back(self, ordinals: int, calls: Counter[tuple[int, str, str]]) -> None:
        """A transaction was rolled back: its checkpoints and unkeyed calls do not count."""
        self.ordinal -= ordinals
        for call, times in calls.items():
            self._seen[call] -= times

    def tool(
        self, name: str, arguments: Any, *, key: str | None = None, policy: ToolPolicy | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, on_doubt: OnDoubt | None = None,
        probe: Callable[..., Any] | None = None, ordered: bool = True,
    ) -> Flow[ToolOutcome]:  # fmt: skip
        """Call a tool once: recorded before and after, replayed on a later attempt.

        `on_doubt`, `probe`: instead of what the tool declares, for this call. `ordered`: the handler itself asks, not
        one of several branches of it.
        Raises UnknownTool, CallBeforeCheckpoint, InDoubt, PostconditionFailed, LeaseLost, and whatever the tool raises.
        """
        tool = self._tool(name, policy, execute).treated(on_doubt, probe)
        identity = self.identify(name, arguments, key=key)
        if not tool.policy.repeats_safely:
            yield from self.refuse_if_before(identity)
        if key is None and ordered and not self.branches.open:
            identity = self.program.place(identity)
        execute_it = self.guarded(with_arguments(tool.run, arguments))
        yield from self.may_begin()
        with self.branches:
            yield from self.program.check(identity, self.lease, self.branches)
            outcome = yield from call_tool(
                identity, self.lease, self.lease.fence.worker_id, tool.policy, execute_it, verify=self._verify,
                branches=self.branches,
            )  # fmt: skip
        self.program.ended(identity, replayed=outcome.replayed)
        return outcome

    def identify(self, name: str, arguments: Any, *, key: str | None = None) -> CallIdentity:
        """Which call this is: the next such one at this place of the program. Waits are identified like tools."""
        text, ordinal, nth = canonical_text(arguments, what=f"arguments of {name}"), self.ordinal, None
        if key is None:
            self._seen[ordinal, name, text] += 1
            nth = self._seen[ordinal, name, text]
            if transaction := open_transaction(self):
                transaction.calls[ordinal, name, text] += 1
        made = written_identity(self.task_id, self.item.item_id, name, text, key=key, ordinal=ordinal, nth=nth)
        if name.startswith("@"):
            self.program.asked(made.key)
        return made

    def _tool(self, name: str, policy: ToolPolicy | None, execute: Callable[[ToolCall, Any], Any] | None) -> Tool:
        known = self._tools.get(name)
        if known is not None and policy is None and execute is None:
            return known
        run = execute or (known.run if known else None)
        if run is None:
            raise UnknownTool(
                f"no tool is registered as {name!r}; known are {', '.join(sorted(self._tools))}",
                hint="register it with @app.tool(name), or pass execute=",
            )
        return Tool(name, run, policy or (known.policy if known else ToolPolicy()))

    def may_begin(self) -> Flow[None]:
        """Nothing is recorded as begun while it may not be executed: it would be in doubt for nothing."""
        if self._before_effect is not None:
            yield from invoke(self._before_effect)

    def refuse_if_before(self, call: CallIdentity) -> Flow[None]:
        """A handler that starts over although it was given a snapshot would repeat its side effects: refuse."""
        if call.call_key is not None or not self.resumed_ordinal:
            return
        name, arguments, key = call.tool_name, call.arguments, call.key
        before = yield from do(ledger.ledger_before(self.item.item_id, name, arguments, self.resumed_ordinal, key))
        if before is not None:
            raise CallBeforeCheckpoint(
                f"{name}({arguments[:200]}) was recorded {self.resumed_ordinal - before} checkpoint(s) before the one "
                f"this item resumed from, and not since",
                hint="pass key= to say that it is the same call, skip it with `if ctx.snapshot is None`, or declare "
                "the tool safe to repeat",
            )

    def llm(
        self, operation_type: str, prompt: Any, *, model: str, generate: Callable[[], Any], sample: int | None = None,
        expires_s: float = EXPIRES_S,
    ) -> Flow[Any]:  # fmt: skip
        """A model's output, paid once per content: operation, prompt, model, task (and `sample`, for a second one)."""
        request = ModelRequest(operation_type, prompt, model, sample=sample)
        return (yield from ask_model(self, request, generate, expires_s=expires_s))

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, begun only while the process may trust its lease."""
        return guarded(function, self._before_effect)

    def check(self, evidence: Sequence[Evidence]) -> Flow[PackVerdict]:
        """Whether claims hold now, on this host, as replay and resume would judge them."""
        verdict: PackVerdict = yield from invoke(self._verify, evidence, f"{self.item.kind} item")
        return verdict

    def expand(self, new_items: Sequence[Mapping[str, Any]]) -> Flow[int]:
        """Add items to this item's task, under its fence. Saying the same again adds nothing."""
        said = canonical_text(seal_payloads(new_items), what="items")
        with submit_step(self.item, len(new_items)) as this:
            added: int = yield from do(items.expand(self.lease.fence, said))
            this.mark(added=added)
            return added

    def results(self) -> Flow[dict[str, Any]]:
        """The results of the items this item depends on, by key."""
        return (yield from do(items.needed_results(self.item.item_id)))

    def ask(self, question: str, shown: Any) -> Flow[Answer]:
        """Ask a person. Raises Parked: until he answers; ApprovalRejected: if he said no."""
        answer: Answer = yield from park_for(approval(self, question, shown, None, None))
        return answer


def _evidence_text(evidence: Sequence[Evidence] | EvidencePack) -> str:
    pack = evidence if isinstance(evidence, EvidencePack) else EvidencePack(list(evidence))
    return canonical_text(stamp_pack(pack).as_json())


NO_EVIDENCE = _evidence_text(())
"""Of most checkpoints: made once."""


def _workspace() -> str:
    """The working directory as Postgres can hold it: a name may have any bytes."""
    name = os.getcwd()
    return name if name.isascii() else os.fsencode(name).decode(errors="replace")


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
