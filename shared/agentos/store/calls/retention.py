"""What is kept no longer: ended tasks, their records, and the partitions of days."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from json import dumps
from typing import Literal

from agentos.store.run import Call

Kind = Literal["tasks", "checkpoints", "ledger", "cache"]


@dataclass(frozen=True, slots=True)
class RetireSlice:
    """How many tasks a slice retired or trimmed, and after which task the next begins; `at` None: it was the last."""

    at: datetime | None
    task_id: str | None
    count: int


@dataclass(frozen=True, slots=True)
class DayPartition:
    """A partition whose time has come. `owned`: the login may detach it; `rows`: by the server's statistics."""

    parent: str
    name: str
    day: date
    state: Literal["attached", "sealed", "detaching", "detached"]
    owned: bool
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Retirable:
    """Of the oldest tasks made before a time: how many were looked at, how many ended by then, and what they take."""

    made: int
    ended: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RetiredTask:
    """What is left of a task that was retired."""

    task_id: str
    kind: str | None
    status: str
    created_at: datetime
    finished_at: datetime
    retired_at: datetime


def database_time() -> Call[datetime]:
    """The only clock that says how old something is."""
    return Call("SELECT agentos.clock() AS at", (), lambda rows: rows[0]["at"])


def retire_slice(
    at: datetime | None, task_id: str | None, before: datetime, kinds: tuple[Kind, ...], limit: int
) -> Call[RetireSlice]:
    """Look at the next `limit` tasks: retire (kinds: tasks) or trim (others) the families that ended by `before`."""
    return Call(
        "SELECT * FROM agentos.retire_slice($1::timestamptz, $2::text, $3::timestamptz, $4::text[], $5::integer)",
        (at, task_id or "", before, list(kinds), limit),
        lambda rows: RetireSlice(**dict(rows[0])),
    )


def clear_retired(tasks: int, rows: int) -> Call[int]:
    """Take rows of up to `tasks` retired tasks away, `rows` of a table at most. 0: there is none to clear."""
    return Call(
        "SELECT agentos.clear_retired($1::integer, $2::integer) AS n", (tasks, rows), lambda got: int(got[0]["n"])
    )


def forget_retired(retired_before: datetime | None, usage_before: datetime | None, limit: int) -> Call[int]:
    """Forget what is left of tasks, and what models cost; None: never. Returns how many rows went."""
    return Call(
        "SELECT agentos.forget_retired($1::timestamptz, $2::timestamptz, $3::integer) AS n",
        (retired_before, usage_before, limit),
        lambda rows: int(rows[0]["n"]),
    )


def partitions_due(outcomes_before: datetime | None, events_before: datetime | None) -> Call[tuple[DayPartition, ...]]:
    """The partitions of days that ended by these times, oldest first; None: none of them."""
    return Call(
        "SELECT * FROM agentos.partitions_due($1::timestamptz, $2::timestamptz)",
        (outcomes_before, events_before),
        lambda rows: tuple(DayPartition(**dict(row)) for row in rows),
    )


def keep_outcomes(name: str, after: int, limit: int) -> Call[int | None]:
    """Move outcomes of tasks that are there to the kept partition. Returns where to go on; None: that was all."""
    return Call(
        "SELECT * FROM agentos.keep_outcomes($1::text, $2::bigint, $3::integer)",
        (name, after, limit),
        lambda rows: rows[0]["after"],
    )


def keep_events(name: str, after: str, limit: int) -> Call[str | None]:
    """The same with events of tasks that have not ended."""
    return Call(
        "SELECT * FROM agentos.keep_events($1::text, $2::text, $3::integer)",
        (name, after, limit),
        lambda rows: rows[0]["after"],
    )


def seal_partition(name: str) -> Call[bool]:
    """Let nothing come into it any more. False: something in it lives. Raises DatabaseBusy: if it is written to."""
    return Call("SELECT agentos.seal_partition($1::text) AS ok", (name,), lambda rows: bool(rows[0]["ok"]))


def drop_partition(name: str) -> Call[bool]:
    """Detach it, if it is not, and drop it. False: something in it lives, and it is a partition as before.

    Raises DatabaseBusy: if somebody else uses it for longer than it may be waited for.
    """
    return Call("SELECT agentos.drop_partition($1::text) AS ok", (name,), lambda rows: bool(rows[0]["ok"]))


def note_retention(*, done: bool, blocked: Mapping[str, str]) -> Call[None]:
    """Leave word for `agentos doctor`."""
    return Call(
        "SELECT agentos.note_retention($1::boolean, $2::text::json) IS NULL AS ok",
        (done, dumps(dict(blocked))),
        lambda _: None,
    )


def retirable_tasks(before: datetime, limit: int) -> Call[Retirable]:
    """Of the `limit` oldest tasks made before then, those that ended by then. Reads only."""
    return Call(
        "SELECT * FROM agentos.retirable_tasks($1::timestamptz, $2::integer)",
        (before, limit),
        lambda rows: Retirable(**dict(rows[0])),
    )


def records_retired_at(task_id: str) -> Call[datetime | None]:
    """When records of a task that is there went before it: checkpoints, tool calls or outputs; None: it has all."""
    return Call(
        "SELECT agentos.records_retired_at($1::text) AS at",
        (task_id,),
        lambda rows: rows[0]["at"],
    )


def retired_task(task_id: str) -> Call[RetiredTask | None]:
    """What is known of a task that was retired; None: it was not."""
    return Call(
        "SELECT * FROM agentos.retired_task($1::text)",
        (task_id,),
        lambda rows: RetiredTask(**dict(rows[0])) if rows else None,
    )
