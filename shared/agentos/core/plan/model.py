"""A checked plan, and the form in which the engine takes its items."""

from dataclasses import dataclass, field
from typing import Any

from agentos.core.evidence import Evidence


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One work item to be. `depends_on` holds keys of the same plan.

    `max_attempts` counts the first attempt (default 5). `timeout_s` is in seconds, None: the default of the kind.
    `queue` None: the queue of the task.
    """

    key: str
    kind: str
    payload: dict[str, Any]
    depends_on: tuple[str, ...] = ()
    max_attempts: int = 5
    timeout_s: float | None = None
    queue: str | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A title and at least one item; keys are unique and the dependencies have no cycle."""

    title: str
    items: tuple[PlanItem, ...] = field(default=())


def to_items(plan: Plan) -> list[dict[str, Any]]:
    """The items as `create_task(items=…)` takes them; the evidence lies in the payload under "evidence"."""
    return [
        {
            "key": item.key,
            "kind": item.kind,
            "payload": payload_of(item),
            "depends_on": list(item.depends_on),
            "max_attempts": item.max_attempts,
            "timeout_s": item.timeout_s,
            "queue": item.queue,
        }
        for item in plan.items
    ]


def payload_of(item: PlanItem) -> dict[str, Any]:
    """The payload that the handler gets: the item's own, and its evidence if it has any."""
    if not item.evidence:
        return dict(item.payload)
    return item.payload | {"evidence": [evidence.as_json() for evidence in item.evidence]}
