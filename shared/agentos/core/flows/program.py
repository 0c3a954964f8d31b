"""Does the handler still make the calls that it made before? Told from the order of those made one after the other.

Only unkeyed calls that the handler itself made while no other call of its was open have a position: what several
branches do at once has no order that could be held against them. A call that is not recorded, asked while a recorded
one of the same checkpoint was not asked for yet, means that the program changed under its record.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from agentos.core.flows.doubt import Branches, ask_person, note_doubt
from agentos.core.lease import Lease
from agentos.store.calls.ledger import CallIdentity, RecordedCall
from agentos.store.canonical import canonical_text
from agentos.store.errors import ProgramChanged
from agentos.store.run import Flow

OnChange = Literal["ask", "continue", "fail"]
_SHOWN = 160


class Program:
    """The calls of one attempt, in order, beside those of the attempts before it."""

    def __init__(self, on_change: OnChange = "ask") -> None:
        self.on_change = on_change
        self._recorded: dict[str, RecordedCall] = {}
        self._positions: defaultdict[int, int] = defaultdict(int)
        self._asked: set[str] = set()
        self._free: set[int] = set()

    def remember(self, recorded: Iterable[RecordedCall]) -> None:
        """What earlier attempts recorded since the checkpoint that this one resumed from."""
        self._recorded = {each.key: each for each in recorded}

    def asked(self, key: str) -> None:
        """The program has come to this call."""
        self._asked.add(key)

    def unread(self, ordinal: int) -> list[RecordedCall]:
        """Waits that are over, recorded after this checkpoint, to which the program has not come."""
        return [
            each for each in self._recorded.values()
            if each.ordinal == ordinal and each.tool_name.startswith("@") and each.key not in self._asked
        ]  # fmt: skip

    def place(self, call: CallIdentity) -> CallIdentity:
        """The call with its position among those of its checkpoint that are made one after the other."""
        ordinal = call.ordinal or 0
        self._positions[ordinal] += 1
        return call._replace(position=self._positions[ordinal])

    def ended(self, call: CallIdentity, *, replayed: bool) -> None:
        """From a call on that ran again, the handler may see other results than before, and rightly do other things."""
        if call.key in self._recorded and not replayed:
            self._free.add(call.ordinal or 0)

    def check(self, call: CallIdentity, lease: Lease, branches: Branches) -> Flow[None]:
        """Raises Parked (on_change ask), ProgramChanged (fail): if the program changed. Nothing was executed."""
        self._asked.add(call.key)
        left = [
            each for each in self._recorded.values()
            if each.ordinal == call.ordinal and each.position is not None and each.state != "failed"
            and each.key not in self._asked
        ]  # fmt: skip
        if (
            call.position is None or call.key in self._recorded or not left
            or self.on_change == "continue" or (call.ordinal or 0) in self._free
        ):  # fmt: skip
            return
        first = min(left, key=lambda each: each.position or 0)
        doubt_id, message = self._question(call, first)
        shown = canonical_text(
            {"recorded": [f"{each.tool_name}({each.arguments})" for each in self._in_order(call)], "asked":
             f"{call.tool_name}({call.arguments[:_SHOWN]})", "position": call.position}
        )  # fmt: skip
        about = call._replace(key=first.key)
        if self.on_change == "ask":
            yield from ask_person(doubt_id, about, lease, message, branches, sort="program", shown=shown)
        yield from note_doubt(doubt_id, about, lease, lease.fence.worker_id, message, sort="program", shown=shown)
        raise ProgramChanged(
            message, hint=f"agentos resolve {call.task_id} --continue, then agentos retry {call.task_id}; or"
            f" agentos rewind {call.task_id} --to SEQ; or declare on_change='continue'",
        )  # fmt: skip

    def _in_order(self, call: CallIdentity) -> list[RecordedCall]:
        found = [each for each in self._recorded.values() if each.ordinal == call.ordinal and each.position is not None]
        return sorted(found, key=lambda each: each.position or 0)

    def _question(self, call: CallIdentity, first: RecordedCall) -> tuple[UUID, str]:
        """The same question has the same id, whichever attempt asks it."""
        lines = [
            f"the program of task {call.task_id} changed under its record: after {call.ordinal or 0} checkpoint(s)"
        ]
        for each in self._in_order(call):
            mark = "  " if each.key in self._asked else "- "
            lines.append(f"{mark}{each.position}. recorded {each.tool_name}({each.arguments[:_SHOWN]}) {each.state}")
        lines.append(f"+ {call.position}. asked    {call.tool_name}({call.arguments[:_SHOWN]})")
        return uuid5(NAMESPACE_OID, f"{first.key}:{call.key}"), "\n".join(lines)
