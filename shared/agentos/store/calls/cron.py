"""Cron entries: declaring, firing, and what people do to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class CronRow:
    """An entry. `skipped`: instants that came and were not fired; `declared`: by a living worker's app; `now`: when it
    was read, by the database's clock.
    """

    name: str
    expression: str
    timezone: str
    misfire: str
    misfire_max: int
    kind: str
    queue: str
    version: int
    next_at: datetime
    paused: bool
    last_at: datetime | None
    last_task: str | None
    skipped: int
    declared: bool
    now: datetime


def database_clock() -> Call[datetime]:
    """Now, by the clock that decides."""
    return Call("SELECT agentos.clock() AS now", (), lambda rows: rows[0]["now"])


def declare_cron(entries: str) -> Call[int]:
    """`entries`: JSON text, the rows of an app. Returns how many were taken."""
    return Call("SELECT agentos.declare_cron($1::text) AS n", (entries,), lambda rows: int(rows[0]["n"]))


def list_cron(*, due: bool = False) -> Call[tuple[CronRow, ...]]:
    """All entries by name; `due`: only those whose time has come and that are not paused."""
    return Call(
        "SELECT * FROM agentos.list_cron($1::boolean)", (due,), lambda rows: tuple(CronRow(**dict(row)) for row in rows)
    )


def next_cron_s() -> Call[float | None]:
    """Seconds until the next time of any entry; negative: it is late. None: there is none."""
    return Call("SELECT agentos.next_cron_s() AS s", (), lambda rows: rows[0]["s"])


def fire_cron(
    entry: CronRow, instants: Sequence[datetime], skipped: int, next_at: datetime
) -> Call[tuple[str, ...] | None]:
    """Make the tasks of `instants` and move on. Returns their ids; None: another was faster, or it was changed."""
    return Call(
        "SELECT agentos.fire_cron($1::text, $2::timestamptz, $3::text, $4::timestamptz[], $5::integer,"
        " $6::timestamptz) AS made",
        (entry.name, entry.next_at, entry.expression, list(instants), skipped, next_at),
        lambda rows: None if rows[0]["made"] is None else tuple(rows[0]["made"]),
    )


def run_cron(name: str, task_id: str) -> Call[None]:
    """Fire an entry now, as `task_id`. Raises UnknownCron."""
    return Call("SELECT agentos.run_cron($1::text, $2::text)", (name, task_id), lambda _: None)


def pause_cron(name: str) -> Call[None]:
    """Fire it no more until it is resumed. Raises UnknownCron."""
    return Call("SELECT agentos.pause_cron($1::text)", (name,), lambda _: None)


def resume_cron(name: str, next_at: datetime) -> Call[None]:
    """End the pause; it goes on with `next_at`. Raises UnknownCron."""
    return Call("SELECT agentos.resume_cron($1::text, $2::timestamptz)", (name, next_at), lambda _: None)


def remove_cron(name: str) -> Call[None]:
    """Forget an entry. Raises UnknownCron."""
    return Call("SELECT agentos.remove_cron($1::text)", (name,), lambda _: None)
