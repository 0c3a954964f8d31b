"""What handlers tell while they run, and reading it in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text, loads
from agentos.store.errors import InvalidInput
from agentos.store.run import Call

BEGINNING = "0.0"
"""The cursor before the first event of every task."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something a handler told: `event` is `progress`, `log` or `tokens`; `data` the JSON of an object."""

    fence: Fence
    attempt: int
    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a task. `cursor`: give it to `stream` to go on after this event."""

    cursor: str
    at: datetime
    event: str
    item_id: int | None
    key: str | None
    attempt: int | None
    worker_id: int | None
    data: Any


def tell(worker_id: int, told: Sequence[Told]) -> Call[int]:
    """Write events of items this worker holds, in this order. Returns how many: items it lost tell nothing, nor does an
    attempt beside a later one of the same item.
    """
    items = {each.fence.item_id: each for each in sorted(told, key=lambda each: each.attempt)}
    told = [each for each in told if each.attempt == items[each.fence.item_id].attempt]
    text = canonical_text(
        [{"item_id": each.fence.item_id, "event": each.event, "data": each.data} for each in told], what="events"
    )
    return Call(
        "SELECT agentos.tell($1::bigint, $2::bigint[], $3::uuid[], $4::integer[], $5::text) AS n",
        (
            worker_id,
            list(items),
            [each.fence.token for each in items.values()],
            [each.attempt for each in items.values()],
            text,
        ),
        lambda rows: int(rows[0]["n"]),
    )


def stream(task_id: str, after: str = BEGINNING, limit: int = 500) -> Call[tuple[StreamEvent, ...]]:
    """The next events of a task, at most `limit`, oldest first. Raises InvalidInput: if `after` is no cursor."""
    xact, _, seq = after.partition(".")
    if not (xact.isdecimal() and seq.isdecimal()):
        raise InvalidInput(f"{after!r} is not a cursor", hint=f"use the `cursor` of an event, or {BEGINNING!r}")
    return Call(
        "SELECT * FROM agentos.stream($1::text, $2::text, $3::bigint, $4::integer)",
        (task_id, xact, int(seq), limit),
        lambda rows: tuple(_event(row) for row in rows),
    )


def _event(row: Any) -> StreamEvent:
    columns = {**dict(row), "data": loads(row["data"])}
    cursor = f"{columns.pop('xact')}.{columns.pop('seq')}"
    return StreamEvent(cursor, **columns)
