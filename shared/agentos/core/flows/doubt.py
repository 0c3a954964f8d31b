"""A call that was begun and never finished: ask its probe, and what the probe cannot tell, a person."""

from uuid import UUID

from agentos.core.flows.patience import growing_waits, insist
from agentos.core.lease import Lease
from agentos.core.parked import Parked
from agentos.store.calls.doubts import Sort, ask_doubt
from agentos.store.calls.ledger import CallIdentity
from agentos.store.run import Flow, Sleep


class Branches:
    """The calls of one attempt that are open at this moment: handlers may make several at once.

    An item is parked when every open call of it waits: one that still runs would be left in doubt itself.
    """

    def __init__(self) -> None:
        self.open = 0
        self.waiting = 0
        self.parked = False

    def __enter__(self) -> None:
        """An open call, for the block."""
        self.open += 1

    def __exit__(self, *_: object) -> None:
        self.open -= 1

    def until_all_wait(self) -> Flow[None]:
        """Returns when no call of the item runs. Raises Parked: if another branch has parked it meanwhile."""
        waits = growing_waits()
        self.waiting += 1
        try:
            while self.open > self.waiting and not self.parked:
                yield Sleep(next(waits))
        finally:
            self.waiting -= 1
        if self.parked:
            raise Parked


def ask_person(
    doubt_id: UUID, call: CallIdentity, lease: Lease, message: str, branches: Branches, *, sort: Sort = "call",
    shown: str = "{}",
) -> Flow[None]:  # fmt: skip
    """Park the item until a person answers. Returns only if the question is answered already: ask the ledger again.

    Branches that are in doubt at the same time are all shown before the item is parked, so that one look at
    `agentos doubts` tells everything. Raises Parked, LeaseLost, TaskCancelled.
    """

    def ask(park: bool) -> Flow[bool]:
        question = ask_doubt(
            doubt_id, call, lease.fence, lease.fence.worker_id, message, park=park, sort=sort, shown=shown
        )
        return insist(question)

    if branches.open > 1:
        if not (yield from ask(False)):
            return
        yield from branches.until_all_wait()
    if (yield from ask(True)):
        branches.parked = True
        raise Parked


def note_doubt(
    doubt_id: UUID, call: CallIdentity, lease: Lease | None, worker_id: int, message: str, *, sort: Sort = "call",
    shown: str = "{}",
) -> Flow[bool]:  # fmt: skip
    """Show a question without waiting for its answer. False: the call is not in doubt any more."""
    fence = lease.fence if lease else None
    return (yield from insist(ask_doubt(doubt_id, call, fence, worker_id, message, park=False, sort=sort, shown=shown)))
