"""The life of a worker row, and the coordinator's transitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class Adopted:
    """After an ambiguous claim: the new epoch, and everything the worker holds."""

    claim_epoch: int
    held: dict[int, UUID]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A lease taken from a worker that stopped beating."""

    item_id: int
    task_id: str
    worker_id: int
    crashes: int
    quarantined: bool


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """A worker row of this host that counts as living; `process` proves which process it was."""

    worker_id: int
    pid: int
    process: str


@dataclass(frozen=True, slots=True)
class AtRisk:
    """Leases whose worker is half-way to being declared dead, and living workers."""

    leases: int
    workers: int


@dataclass(frozen=True, slots=True)
class BlockedLease:
    """A lease without a living worker that could not be locked, and who seems to lock it."""

    item_id: int
    worker_id: int
    pid: int | None
    query: str | None


def schema_version() -> Call[int]:
    """The number of the newest migration that was applied. Raises SchemaMissing: if there is no schema any more."""
    return Call("SELECT agentos.schema_version() AS version", (), lambda rows: int(rows[0]["version"]))


def register_worker(
    worker_id: int, *, label: str, host: str, pid: int, process: str, version: str, role: str, ttl_s: float, serves: str
) -> Call[None]:
    """Insert the worker's row, alive for `ttl_s`. `serves`: JSON text {"queues", "kinds", "concurrency",
    "versions"?: {kind: [those it runs]}}; a kind without them: 0.
    """
    return Call(
        "SELECT agentos.register_worker($1::bigint, $2::text, $3::text, $4::integer, $5::text, $6::text, $7::text,"
        " $8::float8, $9::text)",
        (worker_id, label, host, pid, process, version, role, float(ttl_s), serves),
        lambda _: None,
    )


class Told(NamedTuple):
    """What a beat is told: held items whose task was cancelled, those whose task is paused, and the server's time."""

    cancelled: frozenset[int]
    paused: frozenset[int]
    server_time: datetime


def beat(worker_id: int, loop_lag_ms: int, clock_skew_ms: int = 0, pid: int | None = None) -> Call[Told]:
    """Stay alive for another TTL. `clock_skew_ms`: the database's clock minus this host's, by the last beat's answer.
    `pid`: of the session, as the server told it at the login; then the end of all sessions of this process is noticed.

    Raises WorkerDead: if it is too late.
    """
    return Call(
        "SELECT cancelled, paused, server_time FROM agentos.beat($1::bigint, $2::integer, $3::integer, $4::integer)",
        (worker_id, loop_lag_ms, clock_skew_ms, pid),
        lambda rows: Told(frozenset(rows[0]["cancelled"]), frozenset(rows[0]["paused"]), rows[0]["server_time"]),
    )


def offer(worker_id: int, epoch: int, lanes: Sequence[int], room: int) -> Call[bool]:
    """Submits may hand it items of these lanes, which have no limits, up to `room`, whenever it stands by. False: its
    epoch is old, or it is not alive; nothing has changed.
    """
    return Call(
        "SELECT agentos.offer($1::bigint, $2::integer, $3::integer[], $4::integer) AS offered",
        (worker_id, epoch, list(lanes), room),
        lambda rows: bool(rows[0]["offered"]),
    )


def stand_by(worker_id: int, *, waits: bool) -> Call[bool]:
    """Say in this session, for as long as it lasts, that the worker waits for work, or does no more. Returns whether it
    is said: if something was in the way, say it again. Not to be said twice.
    """
    return Call(
        "SELECT agentos.stand_by($1::bigint, $2::boolean) AS waits",
        (worker_id, waits),
        lambda rows: bool(rows[0]["waits"]),
    )


def retire_worker(worker_id: int, state: str) -> Call[None]:
    """Say `draining` or `stopped`."""
    return Call("SELECT agentos.retire_worker($1::bigint, $2::text)", (worker_id, state), lambda _: None)


def adopt(worker_id: int) -> Call[Adopted]:
    """After a claim whose reply was lost. Raises WorkerDead: if it is not alive any more."""

    def read(rows: Sequence[Any]) -> Adopted:
        return Adopted(rows[0]["claim_epoch"], dict(zip(rows[0]["item_ids"], rows[0]["tokens"], strict=True)))

    return Call("SELECT * FROM agentos.adopt($1::bigint)", (worker_id,), read)


def lanes_of(queues: Sequence[str], kinds: Sequence[str], versions: Sequence[int | None] = ()) -> Call[tuple[int, ...]]:
    """The lanes of every queue with every kind in its version (by place); missing ones are made. A version of None, or
    none at its place: the newest that a worker runs.
    """
    return Call(
        "SELECT lane FROM agentos.lanes_of($1::text[], $2::text[], $3::integer[])",
        (list(queues), list(kinds), list(versions)),
        lambda rows: tuple(row["lane"] for row in rows),
    )


def leases_at_risk(lanes: Sequence[int], limit: int = 1000) -> Call[AtRisk]:
    """What may be reclaimed in these lanes before long; counts up to `limit` leases."""
    return Call(
        "SELECT * FROM agentos.leases_at_risk($1::integer[], $2::integer)",
        (list(lanes), limit),
        lambda rows: AtRisk(**dict(rows[0])),
    )


def declare_dead(worker_ids: Sequence[int]) -> Call[int]:
    """Workers whose process is known to be gone."""
    return Call("SELECT agentos.declare_dead($1::bigint[]) AS n", (list(worker_ids),), lambda rows: int(rows[0]["n"]))


def local_workers(host: str) -> Call[tuple[LocalWorker, ...]]:
    """Living workers that said they run on `host`."""
    return Call(
        "SELECT * FROM agentos.local_workers($1::text)",
        (host,),
        lambda rows: tuple(LocalWorker(**dict(row)) for row in rows),
    )


def handed_to(worker_id: int) -> str:
    """Told instead of a queue's name: a submit has handed something to this worker."""
    return f"@{worker_id}"


GONE = "@gone"
"""Told instead of a queue's name: some worker seems to be gone, and its items will have to run alone."""


@dataclass(frozen=True, slots=True)
class GoneWorker:
    """A worker none of whose sessions is there, and its last beat."""

    worker_id: int
    beat_at: datetime


def gone_workers() -> Call[tuple[GoneWorker, ...]]:
    """Workers that beat on this server as it runs and have no session any more: their process died, most likely."""
    return Call("SELECT * FROM agentos.gone_workers()", (), lambda rows: tuple(GoneWorker(**dict(row)) for row in rows))


def declare_gone(gone: Sequence[GoneWorker]) -> Call[tuple[int, ...]]:
    """Declare those dead that are still gone and have not beaten since. Returns their ids."""
    return Call(
        "SELECT agentos.declare_gone($1::bigint[], $2::timestamptz[]) AS ids",
        ([each.worker_id for each in gone], [each.beat_at for each in gone]),
        lambda rows: tuple(rows[0]["ids"]),
    )


def reclaim(limit: int = 1000, max_crashes: int = 3) -> Call[tuple[Reclaimed, ...]]:
    """Take up to `limit` leases from workers that stopped beating."""
    return Call(
        "SELECT * FROM agentos.reclaim($1::integer, $2::integer)",
        (limit, max_crashes),
        lambda rows: tuple(Reclaimed(**dict(row)) for row in rows),
    )


def blocked_leases() -> Call[tuple[BlockedLease, ...]]:
    """What a sweep had to skip."""
    return Call(
        "SELECT * FROM agentos.blocked_leases()", (), lambda rows: tuple(BlockedLease(**dict(row)) for row in rows)
    )


def promote(limit: int = 5000) -> Call[tuple[str, ...]]:
    """Move due items to ready. Returns the queues that got some."""
    return Call("SELECT agentos.promote($1::integer) AS queues", (limit,), lambda rows: tuple(rows[0]["queues"]))


def repair(limit: int = 100) -> Call[int]:
    """Put tasks and dependants right that a restore or a hand edit left behind. Returns how many."""
    return Call("SELECT agentos.repair($1::integer) AS n", (limit,), lambda rows: int(rows[0]["n"]))


def forget_workers(age_s: float = 86_400.0) -> Call[int]:
    """Delete the rows of workers that ended this long ago. Returns how many."""
    return Call("SELECT agentos.forget_workers($1::float8) AS n", (float(age_s),), lambda rows: int(rows[0]["n"]))


def ensure_partitions() -> Call[int]:
    """Make the day partitions of the next week. Returns how many were new."""
    return Call("SELECT agentos.ensure_partitions() AS n", (), lambda rows: int(rows[0]["n"]))


def lead(name: str, holder: int, ttl_s: float) -> Call[int | None]:
    """Take or keep the lead. Returns the term, None while another holds it."""
    return Call(
        "SELECT agentos.lead($1::text, $2::bigint, $3::float8) AS term",
        (name, holder, float(ttl_s)),
        lambda rows: rows[0]["term"],
    )


def resign(name: str, holder: int) -> Call[None]:
    """Give the lead up."""
    return Call("SELECT agentos.resign($1::text, $2::bigint)", (name, holder), lambda _: None)


def wake(queues: Sequence[str]) -> Call[None]:
    """Tell listening workers of these queues to look now. Never inside a transaction that does anything else."""
    return Call("SELECT agentos.wake($1::text[])", (list(queues),), lambda _: None)


def wake_one(queue: str) -> Call[None]:
    """The same for one queue, its argument a text."""
    return Call("SELECT agentos.wake(ARRAY[$1::text])", (queue,), lambda _: None)


def wake_behind(queue: str) -> Call[None]:
    """`wake_one`, or the worker alone that the submit before it in this session has handed its item to."""
    return Call("SELECT agentos.wake_behind($1::text)", (queue,), lambda _: None)
