"""Flow control: which lanes a worker serves, queues that stand still, weights of tenants, limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from agentos.store.run import Call

Scope = Literal["all", "queue", "kind", "tenant"]
Measure = Literal["concurrency", "rate", "depth"]
Per = Literal["all", "tenant", "key"]


@dataclass(frozen=True, slots=True)
class ServedLane:
    """A lane that a worker claims from. `tenant`: "" for work of none. `limited`: only by `items.claim_limited`."""

    lane: int
    tenant: str = ""
    weight: float = 1.0
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker claims from, and the newest lane there is, of whomever."""

    newest: int
    lanes: tuple[ServedLane, ...]


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue. `paused_at`: None while it runs. `ready` and `held` are counted up to what was asked."""

    queue: str
    paused_at: datetime | None
    paused_by: str | None
    lanes: int
    tenants: int
    ready: int
    held: int


def served_lanes(queues: Sequence[str], kinds: Sequence[str], versions: Sequence[int | None]) -> Call[Served]:
    """The lanes of these queues with each kind in its version (by place), of all tenants, paused queues left out."""

    def read(rows: Sequence[Any]) -> Served:
        row = rows[0]
        columns = zip(row["lanes"], row["tenants"], row["weights"], row["limited"], strict=True)
        return Served(row["newest"], tuple(ServedLane(*column) for column in columns))

    return Call(
        "SELECT * FROM agentos.served_lanes($1::text[], $2::text[], $3::integer[])",
        (list(queues), list(kinds), list(versions)),
        read,
    )


def newest_lane() -> Call[int]:
    """The number of the newest lane; 0: there is none."""
    return Call("SELECT agentos.newest_lane() AS lane", (), lambda rows: int(rows[0]["lane"]))


def pause_queue(queue: str, by: str | None = None) -> Call[bool]:
    """From the commit on nobody claims from it. False: it was paused before. Raises DatabaseBusy: say it again."""
    return Call(
        "SELECT agentos.pause_queue($1::text, $2::text) AS done", (queue, by), lambda rows: bool(rows[0]["done"])
    )


def resume_queue(queue: str) -> Call[bool]:
    """Claims go on. False: it was not paused. Raises DatabaseBusy: say it again."""
    return Call("SELECT agentos.resume_queue($1::text) AS done", (queue,), lambda rows: bool(rows[0]["done"]))


def set_weight(tenant: str, weight: float) -> Call[float]:
    """How many turns a tenant gets for each of one with weight 1. Returns the former. Raises DatabaseBusy."""
    return Call(
        "SELECT agentos.set_weight($1::text, $2::real) AS former",
        (tenant, weight),
        lambda rows: float(rows[0]["former"]),
    )


def list_queues(most: int = 10_000) -> Call[tuple[QueueRow, ...]]:
    """Every queue. `most`: how far each is counted."""
    return Call(
        "SELECT * FROM agentos.list_queues($1::integer)",
        (most,),
        lambda rows: tuple(QueueRow(**dict(row)) for row in rows),
    )


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit. `used`: by the key that uses most now (a depth: null counts as 0); `keys`: how many use it."""

    scope: str
    name: str
    measure: str
    per: str
    most: int
    period_s: float | None
    declared: bool
    used: int
    keys: int


def set_limit(
    scope: Scope, name: str, measure: Measure, most: int, *, per: Per = "all", period_s: float | None = None,
    declared: bool = False,
) -> Call[bool]:  # fmt: skip
    """Set or change a limit; it holds from the commit on. False: it is that already, or `declared` (by an app) and an
    operator has set it. Raises DatabaseBusy: say it again.
    """
    return Call(
        "SELECT agentos.set_limit($1::text, $2::text, $3::text, $4::text, $5::integer, $6::float8, $7::boolean)"
        " AS done",
        (scope, name, measure, per, most, period_s, declared),
        lambda rows: bool(rows[0]["done"]),
    )


def clear_limit(scope: Scope, name: str, measure: Measure, per: Per = "all") -> Call[bool]:
    """Take a limit away. False: there was none. Raises DatabaseBusy: say it again."""
    return Call(
        "SELECT agentos.clear_limit($1::text, $2::text, $3::text, $4::text) AS done",
        (scope, name, measure, per),
        lambda rows: bool(rows[0]["done"]),
    )


def set_depth(queue: str, most: int | None) -> Call[bool]:
    """Refuse submits (`QueueFull`) while so many items of the queue are ready; None: refuse none. False: it was that
    already. Raises DatabaseBusy: say it again.
    """
    return Call(
        "SELECT agentos.set_depth($1::text, $2::integer) AS done", (queue, most), lambda rows: bool(rows[0]["done"])
    )


def list_limits() -> Call[tuple[LimitRow, ...]]:
    """All limits, with what uses them."""
    return Call("SELECT * FROM agentos.list_limits()", (), lambda rows: tuple(LimitRow(**dict(row)) for row in rows))


def lane_is_missing(
    queue: str, kind: str, version: int | None = None, tenant: str = "", limit_key: str = ""
) -> Call[bool]:
    """Whether nobody has committed this lane yet, as far as this transaction could tell when it is made beside it."""
    return Call(
        "SELECT agentos.lane_is_missing($1::text, $2::text, $3::integer, $4::text, $5::text) AS missing",
        (queue, kind, version, tenant, limit_key),
        lambda rows: bool(rows[0]["missing"]),
    )


def lane_of(queue: str, kind: str, version: int | None = None, tenant: str = "", limit_key: str = "") -> Call[int]:
    """The number of a lane, made if it is missing."""
    return Call(
        "SELECT agentos.lane_of($1::text, $2::text, $3::integer, $4::text, $5::text) AS lane",
        (queue, kind, version, tenant, limit_key),
        lambda rows: int(rows[0]["lane"]),
    )
