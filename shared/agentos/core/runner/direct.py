"""A running item without recovery: the same kinds run over it, and nothing but the items' ends is recorded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentos.core.evidence import Evidence, EvidencePack, LocalWorld, PackVerdict, RecordedExit, check_pack
from agentos.core.flows.results import pack
from agentos.core.flows.tools import ToolCall, ToolOutcome, ToolPolicy
from agentos.core.flows.waits import Answer, approval, park_for
from agentos.core.identity import tool_identity
from agentos.core.lease import Lease
from agentos.core.llm import Completion
from agentos.core.tool import Tool
from agentos.store.calls import items
from agentos.store.calls.items import ClaimedItem, Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.canonical import canonical_text, loads
from agentos.store.connect import Database
from agentos.store.errors import UnknownTool
from agentos.store.run import Flow, do, invoke
from agentos.store.sealed_items import seal_payloads


class DirectScope:
    """One attempt at one item, always from its beginning."""

    def __init__(self, item: ClaimedItem, lease: Lease, tools: Mapping[str, Tool], db: Database) -> None:
        self.item = item
        self.snapshot: Any = None
        self._lease = lease
        self._tools = tools
        self._db = db
        self._exits: list[RecordedExit] = []

    def tool(self, name: str, arguments: Any, *, policy: ToolPolicy | None = None) -> Flow[ToolOutcome]:
        """Run the tool now. Raises UnknownTool, whatever the tool raises, InvalidValue, ValueTooLarge."""
        if name not in self._tools:
            raise UnknownTool(f"no tool is registered as {name!r}; known are {', '.join(sorted(self._tools))}")
        nth = len(self._exits) + 1
        identity = tool_identity(self.item.task_id, self.item.item_id, name, arguments, key=None, ordinal=0, nth=nth)
        result = yield from invoke(self._tools[name].run, ToolCall(identity.key, False, 1), arguments)
        if policy is not None and policy.failure is not None and (failure := policy.failure(result)):
            raise failure
        packed = pack(result)
        if packed.refusal is not None:
            raise packed.refusal
        command = arguments.get("command") if isinstance(arguments, Mapping) else arguments
        text = command if isinstance(command, str) else canonical_text(command)
        self._exits.append(RecordedExit(packed.exit_code, text, name))
        return ToolOutcome(loads(packed.text), replayed=False, repaired=False)

    def llm(self, operation_type: str, prompt: Any, *, model: str, generate: Callable[[], Any]) -> Flow[Any]:
        """Ask the model now."""
        made = yield from invoke(generate)
        text = made.text if isinstance(made, Completion) else made
        return loads(canonical_text(text, what="the model's output"))

    def checkpoint(self, checkpoint_type: str, snapshot: Any, evidence: EvidencePack) -> Flow[None]:
        """Without recovery there are none."""
        yield from ()

    def check(self, evidence: Sequence[Evidence]) -> Flow[PackVerdict]:
        """Whether claims hold now; exit codes are those of the commands that this attempt ran."""
        world = LocalWorld(recorded_exit_code=self._exit_of, connect=self._db.connection, may_rerun=True)
        verdict: PackVerdict = yield from invoke(check_pack, EvidencePack(list(evidence)), world)
        return verdict

    def _exit_of(self, command: str | None) -> RecordedExit | None:
        return next((each for each in reversed(self._exits) if command in (None, each.command)), None)

    def expand(self, new_items: Sequence[Mapping[str, Any]]) -> Flow[int]:
        """Add items to this item's task, under its fence."""
        return (yield from do(items.expand(self._lease.fence, canonical_text(seal_payloads(new_items), what="items"))))

    @property
    def fence(self) -> Fence:
        """The proof that this attempt holds its item."""
        return self._lease.fence

    def identify(self, name: str, arguments: Any) -> CallIdentity:
        """A wait's identity: an attempt makes one at most, the planner's question."""
        return tool_identity(self.item.task_id, self.item.item_id, name, arguments, key=None, ordinal=0, nth=1)

    def ask(self, question: str, shown: Any) -> Flow[Answer]:
        """Ask a person. Raises Parked: until he answers."""
        answer: Answer = yield from park_for(approval(self, question, shown, None, None))
        return answer
