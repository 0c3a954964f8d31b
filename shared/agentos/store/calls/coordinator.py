"""What the coordinator asks beside the transitions of `workers`."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentos.store.calls.workers import Reclaimed
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class Slice:
    """Where the next slice of repairs begins: at `Slice()` the first one, and the one after the last."""

    next_task: str = ""
    next_item: int = -(2**63)
    repaired: int = 0


def repair_slice(after: Slice, rows: int = 2000) -> Call[Slice]:
    """Put right what a restore or a hand edit left behind, in the next `rows` tasks and parked items."""
    return Call(
        "SELECT * FROM agentos.repair_slice($1::text, $2::bigint, $3::integer)",
        (after.next_task, after.next_item, rows),
        lambda found: Slice(**dict(found[0])),
    )


def reclaim_blocked(
    item_ids: Sequence[int], wait_s: float, *, limit: int = 1000, max_crashes: int = 3
) -> Call[tuple[Reclaimed, ...]]:
    """`reclaim`, but waiting up to `wait_s` seconds for these leases. Raises DatabaseBusy: if they stay locked."""
    return Call(
        "SELECT * FROM agentos.reclaim_blocked($1::bigint[], $2::float8, $3::integer, $4::integer)",
        (list(item_ids), float(wait_s), limit, max_crashes),
        lambda rows: tuple(Reclaimed(**dict(row)) for row in rows),
    )


def next_due_s() -> Call[float | None]:
    """Seconds until the next scheduled item is due; negative: it is late. None: nothing is scheduled."""
    return Call("SELECT agentos.next_due_s() AS s", (), lambda rows: rows[0]["s"])


def queues_of(item_ids: Sequence[int]) -> Call[tuple[str, ...]]:
    """The queues of these items, each once."""
    return Call(
        "SELECT agentos.queues_of($1::bigint[]) AS queues", (list(item_ids),), lambda rows: tuple(rows[0]["queues"])
    )


@dataclass(frozen=True, slots=True)
class Observations:
    """The whole pool at a glance. `horizon_age`: in transactions; `unroutable`: lanes; `open_doubts`: at most 1000;
    `alive`, `draining`, `late`: workers.
    """

    oldest_transaction_s: float
    horizon_age: int
    unroutable: int
    open_doubts: int
    alive: int
    draining: int
    late: int


def observations() -> Call[Observations]:
    """What metrics tell of the pool beside the statistics. Looks at workers, lanes and sessions, never at items."""
    return Call("SELECT * FROM agentos.observations()", (), lambda rows: Observations(**dict(rows[0])))
