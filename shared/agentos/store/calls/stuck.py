"""Work that stands still: what the coordinator's looks found."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class Change:
    """A task began to stand still (`stuck`), or does not any more. `reason`: `unroutable`: it is ready, and no living
    worker runs it; `silent`: an attempt goes on and records nothing.
    """

    change: Literal["stuck", "unstuck"]
    reason: str
    task_id: str
    item_id: int
    data: dict[str, Any]


def look_for_stuck(silent_s: float, after_s: float) -> Call[tuple[Change, ...]]:
    """Look once: what a look at least `after_s` seconds ago found, too, and what is over. Each is an event of its task.

    An attempt is silent that recorded nothing for `silent_s` seconds. Nothing is returned while another looks.
    """
    return Call(
        "SELECT * FROM agentos.look_for_stuck($1::float8, $2::float8)",
        (float(silent_s), float(after_s)),
        lambda rows: tuple(Change(**{**dict(row), "data": json.loads(row["data"])}) for row in rows),
    )


def stuck_counts() -> Call[dict[str, int]]:
    """Tasks that were told of and still stand still, by reason."""
    return Call("SELECT * FROM agentos.stuck_counts()", (), lambda rows: {row["reason"]: row["tasks"] for row in rows})
