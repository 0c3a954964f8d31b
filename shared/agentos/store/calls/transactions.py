"""The caller's own transaction under a fence: opening it, and finding out how it ended."""

from dataclasses import dataclass
from uuid import UUID

from agentos.store.calls.items import Fence
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class Held:
    """A transaction that holds a fence: its id, and after how many seconds the server ends it."""

    xid: str
    limit_s: float


def hold_fence(fence: Fence, *, joined: bool) -> Call[Held]:
    """Hold the item until the transaction that this runs in ends. `joined`: the connection is the caller's own.

    Raises LeaseLost, TaskCancelled, WrongIsolation. WrongDatabase: if it is joined and this worker is not known there.
    """
    return Call(
        "SELECT * FROM agentos.hold_fence($1::bigint, $2::bigint, $3::uuid, $4::boolean)",
        (fence.item_id, fence.worker_id, fence.token, joined),
        lambda rows: Held(rows[0]["xid"], rows[0]["limit_s"]),
    )


def is_usable() -> Call[bool]:
    """True; the driver's error for a transaction in which a statement has failed."""
    return Call("SELECT agentos.is_usable()", (), lambda _: True)


def transaction_status(xid: str) -> Call[str | None]:
    """'in progress', 'committed' or 'aborted'; None: the server does not know it any more."""
    return Call("SELECT agentos.transaction_status($1::text) AS status", (xid,), lambda rows: rows[0]["status"])


def settled_transaction(fence: Fence, *, step_id: UUID | None, xid: str) -> Call[bool]:
    """Whether a transaction under this fence was committed, once it has ended. `step_id`: of a checkpoint in it.

    Raises LeaseLost: if the item is another worker's by now. DatabaseBusy: if it has not ended for 4 s.
    """
    return Call(
        "SELECT agentos.settled_transaction($1::bigint, $2::bigint, $3::uuid, $4::uuid, $5::text) AS settled",
        (fence.item_id, fence.worker_id, fence.token, step_id, xid),
        lambda rows: bool(rows[0]["settled"]),
    )
