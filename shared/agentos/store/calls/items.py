"""Claiming, ending and giving back work items."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from agentos.store.canonical import loads
from agentos.store.codec import seal
from agentos.store.errors import ContentSealed, InvalidValue
from agentos.store.run import Call

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fence(NamedTuple):
    """Proof of a lease: who holds which item under which token. A tuple, as `ClaimedItem`."""

    item_id: int
    worker_id: int
    token: UUID


class ClaimedItem(NamedTuple):
    """A work item that is held now. `attempt` counts claims, `failures` raises, `crashes` lost processes.

    A tuple, its fields in the order of the type agentos.claimed: as a frozen dataclass each cost 6 us, of 30 in all.
    `payload`: an InvalidValue in place of one that cannot be read, a ContentSealed of one that cannot be opened.
    """

    item_id: int
    token: UUID
    lane: int
    attempt: int
    failures: int
    crashes: int
    claimed_us: int
    task_id: str
    seq: int
    key: str | None
    queue: str
    kind: str
    payload: Any
    max_attempts: int
    timeout_s: float | None
    cancelled: bool
    paused: bool
    version: int = 0

    @property
    def claimed_at(self) -> datetime:
        """When it was claimed, by the database's clock."""
        return EPOCH + timedelta(microseconds=self.claimed_us)

    def fence(self, worker_id: int) -> Fence:
        """The proof that `worker_id` holds it."""
        return tuple.__new__(Fence, (self.item_id, worker_id, self.token))  # half a microsecond less than Fence(...)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought: items, and whether items that must run alone are waiting.

    `fenced`: the completions sent along that were refused. `handed`: nothing was claimed, a submit has handed something
    over.
    """

    items: tuple[ClaimedItem, ...]
    solo_waiting: bool
    fenced: frozenset[int] = frozenset()
    handed: bool = False


_FIELDS = len(ClaimedItem._fields)
_PAYLOAD = ClaimedItem._fields.index("payload")


def _items(rows: Sequence[Any]) -> tuple[ClaimedItem, ...]:
    return tuple([_item([*row.values()]) for row in rows if row["item_id"] is not None])


def _item(values: list[Any]) -> ClaimedItem:
    del values[_FIELDS:]
    values[_PAYLOAD] = _payload(values[_PAYLOAD])
    return tuple.__new__(ClaimedItem, values)


def _payload(text: str) -> Any:
    """One that Postgres took and Python cannot read (1e400, written past this API) must not fail a whole claim."""
    try:
        return loads(text, what="payload")
    except (InvalidValue, ContentSealed) as unreadable:
        return unreadable


def _claimed(rows: Sequence[Any]) -> Claimed:
    last = rows[-1] if rows and rows[-1]["item_id"] is None else None
    if last is None:
        return Claimed(_items(rows), solo_waiting=False)
    return Claimed(_items(rows[:-1]), bool(last["solo_waiting"]), frozenset(last["fenced"] or ()), bool(last["handed"]))


def claim(worker_id: int, epoch: int, lanes: Sequence[int], limit: int, solo: Sequence[int] = ()) -> Call[Claimed]:
    """Take up to `limit` items from `lanes`, in that order.

    Raises WorkerDead: if the worker does not live. LanesChanged: if its epoch is old, or what it may claim has changed.
    """
    return Call(
        "SELECT * FROM agentos.claim($1::bigint, $2::integer, $3::integer[], $4::integer, $5::integer[])",
        (worker_id, epoch, list(lanes), limit, list(solo)),
        _claimed,
    )


def claim_idle(
    worker_id: int, epoch: int, lanes: Sequence[int], limit: int, solo: Sequence[int], newest: int, above: int | None
    = None, known: Sequence[int] = (),
) -> Call[Claimed]:  # fmt: skip
    """`claim` of a worker that lately found nothing. `above`, `known`: as for `handed`; then it tells whether there is
    such an item, before it claims any. Raises LanesChanged: if there is a lane newer than `newest`.
    """
    return Call(
        "SELECT * FROM agentos.claim_idle($1::bigint, $2::integer, $3::integer[], $4::integer, $5::integer[],"
        " $6::integer, $7::bigint, $8::bigint[])",
        (worker_id, epoch, list(lanes), limit, list(solo), newest, above, list(known)),
        _claimed,
    )


def handed(worker_id: int, above: int, known: Sequence[int]) -> Call[tuple[ClaimedItem, ...]]:
    """What submits have handed to the worker and it holds still: items above `above` that are not among `known`."""
    return Call(
        "SELECT * FROM agentos.handed($1::bigint, $2::bigint, $3::bigint[])", (worker_id, above, list(known)), _items
    )


def claim_limited(worker_id: int, epoch: int, lanes: Sequence[int], limit: int) -> Call[tuple[ClaimedItem, ...]]:
    """`claim` from lanes that have limits: as many as those leave. Raises WorkerDead, LanesChanged."""
    return Call(
        "SELECT * FROM agentos.claim_limited($1::bigint, $2::integer, $3::integer[], $4::integer)",
        (worker_id, epoch, list(lanes), limit),
        _items,
    )


def turn(
    worker_id: int, epoch: int, done: Sequence[tuple[int, UUID, str]], lanes: Sequence[int], limit: int, solo:
    Sequence[int] = (), *, claim_no: int | None = None, begun: Sequence[int] = (), over: Sequence[int] = (),
) -> Call[Claimed]:  # fmt: skip
    """Complete `done`, as `complete` does, and claim up to `limit` items, as `claim` does, in one commit.

    `claim_no`: the new items are prefetched, and charged no crash before a later turn sent that number in `begun`. None
    is: they are started. `over`: begun claims of which nothing is held any more.
    Raises WorkerDead: if the worker may not claim; nothing was completed then.
    """
    return Call(
        "SELECT * FROM agentos.turn($1::bigint, $2::integer, $3::bigint[], $4::uuid[], $5::text[], $6::integer[],"
        " $7::integer, $8::integer[], $9::bigint, $10::bigint[], $11::bigint[])",
        (
            worker_id,
            epoch,
            *_columns(done),
            list(lanes),
            limit,
            list(solo),
            claim_no,
            list(begun),
            list(over),
        ),
        _claimed,
        parts=("complete", "claim") if done else ("claim",),
    )


def held_back(task_id: str) -> Call[str | None]:
    """Why nothing of a task is claimed though it is ready: its queue, if that is paused; "", if limits have no room."""
    return Call("SELECT agentos.held_back($1::text) AS queue", (task_id,), lambda rows: rows[0]["queue"])


def claim_task(
    worker_id: int, epoch: int, task_id: str, limit: int, lease_s: float | None = None
) -> Call[tuple[ClaimedItem, ...]]:
    """Take up to `limit` ready items of one task, whatever their lane."""
    return Call(
        "SELECT * FROM agentos.claim_task($1::bigint, $2::integer, $3::text, $4::integer, $5::float8)",
        (worker_id, epoch, task_id, limit, lease_s),
        _items,
    )


def claim_one(worker_id: int, epoch: int, kinds: Sequence[str] | None, lease_s: float) -> Call[ClaimedItem | None]:
    """Take one item of these kinds (None: any) under a lease that ends by itself after `lease_s`."""
    return Call(
        "SELECT * FROM agentos.claim_one($1::bigint, $2::integer, $3::text[], $4::float8)",
        (worker_id, epoch, None if kinds is None else list(kinds), lease_s),
        lambda rows: next(iter(_items(rows)), None),
    )


def complete(worker_id: int, items: Sequence[tuple[int, UUID, str]]) -> Call[frozenset[int]]:
    """Complete many items in one commit: (item_id, token, result as JSON text). Returns the ids fenced off."""
    return Call(
        "SELECT agentos.complete($1::bigint, $2::bigint[], $3::uuid[], $4::text[]) AS fenced",
        (worker_id, *_columns(items)),
        lambda rows: frozenset(rows[0]["fenced"]),
    )


def _columns(done: Sequence[tuple[int, UUID, str]]) -> tuple[list[int], list[UUID], list[str]]:
    """In the order of the items: each lease finds its place among them by bisection."""
    ordered = sorted(done)
    return [i for i, _, _ in ordered], [t for _, t, _ in ordered], [seal(r) for _, _, r in ordered]


def ended_by(items: Sequence[tuple[int, UUID]]) -> Call[frozenset[int]]:
    """Which of these ended under exactly this token: asked when the reply to `complete` was lost."""
    return Call(
        "SELECT agentos.ended_by($1::bigint[], $2::uuid[]) AS ended",
        ([i for i, _ in items], [t for _, t in items]),
        lambda rows: frozenset(rows[0]["ended"]),
    )


def fail(
    fence: Fence, error: str, *, terminal: bool = False, delay_s: float | None = None, status: str = "failed"
) -> Call[str]:
    """Charge a failure; `error` is JSON text with type and message. Returns `scheduled` or the final status.

    Raises LeaseLost: if the fence does not match.
    """
    return Call(
        "SELECT agentos.fail($1::bigint, $2::bigint, $3::uuid, $4::text, $5::boolean, $6::float8, $7::text) AS became",
        (fence.worker_id, fence.item_id, fence.token, error, terminal, delay_s, status),
        lambda rows: str(rows[0]["became"]),
    )


def put_off(fence: Fence, delay_s: float, reason: str) -> Call[None]:
    """Give an item back for at least so long; nothing is charged. `reason`: JSON text for its timeline.

    Raises LeaseLost: if the fence does not match.
    """
    return Call(
        "SELECT agentos.put_off($1::bigint, $2::bigint, $3::uuid, $4::float8, $5::text)",
        (fence.worker_id, fence.item_id, fence.token, float(delay_s), reason),
        lambda _: None,
    )


def release(worker_id: int, items: Sequence[tuple[int, UUID]]) -> Call[frozenset[int]]:
    """Give items back; nothing is charged. Returns the ids given back."""
    return Call(
        "SELECT agentos.release($1::bigint, $2::bigint[], $3::uuid[]) AS released",
        (worker_id, [i for i, _ in items], [t for _, t in items]),
        lambda rows: frozenset(rows[0]["released"]),
    )


def park_paused(fence: Fence) -> Call[bool]:
    """Park an item whose task is paused. False: it is not, any more. Raises LeaseLost, TaskCancelled."""
    return Call(
        "SELECT agentos.park_paused($1::bigint, $2::bigint, $3::uuid) AS parked",
        (fence.worker_id, fence.item_id, fence.token),
        lambda rows: bool(rows[0]["parked"]),
    )


def renew(fence: Fence, lease_s: float) -> Call[datetime]:
    """Put off the end of a lease that ends by itself. Raises LeaseLost: if it has ended."""
    return Call(
        "SELECT agentos.renew($1::bigint, $2::bigint, $3::uuid, $4::float8) AS until",
        (fence.worker_id, fence.item_id, fence.token, lease_s),
        lambda rows: rows[0]["until"],
    )


def expand(fence: Fence, items: str) -> Call[int]:
    """Add items (JSON text, as `create_task` takes them) to the item's task. Returns how many were new."""
    return Call(
        "SELECT agentos.expand($1::bigint, $2::bigint, $3::uuid, $4::text) AS added",
        (fence.item_id, fence.worker_id, fence.token, items),
        lambda rows: int(rows[0]["added"]),
    )


def needed_results(item_id: int) -> Call[dict[str, Any]]:
    """Key (without one: the item's id) and result of every item that this one depends on, in the order of the task."""
    return Call(
        "SELECT * FROM agentos.needed_results($1::bigint)",
        (item_id,),
        lambda rows: {row["name"]: loads(row["result"]) for row in rows},
    )
