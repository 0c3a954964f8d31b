"""What the items of a task produced, for its end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from agentos.cli.output import STYLES, compact, gist
from agentos.store.calls.tasks import ItemRow, task_items
from agentos.store.connect import Database

SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Products:
    """The items of a task that has ended, in their order."""

    items: tuple[ItemRow, ...]

    def by_key(self) -> dict[str, Any]:
        """The result of each item under its key, or its id if it has none."""
        return {_name(item): item.result for item in self.items}

    def lines(self) -> Iterator[Text]:
        """One line for each item."""
        for item in self.items[:SHOWN]:
            status = item.status or item.place
            said = Text.assemble(f"{_name(item)}: ", (status, STYLES.get(status, "")))
            if short := _short(item):
                said.append(f"  {short}")
            yield said
        if len(self.items) > SHOWN:
            yield Text(f"{len(self.items) - SHOWN} more are not shown; --json has them all")


def produced(db: Database, task_id: str) -> Products:
    """Read them. Raises DatabaseError."""
    return Products(db.run(task_items(task_id)))


def _name(item: ItemRow) -> str:
    return item.key or str(item.item_id)


def _short(item: ItemRow) -> str:
    """The last line a command printed, the text of a model, the message of an error."""
    if isinstance(item.error, Mapping):
        return gist(item.error.get("message") or "")
    result = item.result
    if result is None:
        return ""
    if isinstance(result, Mapping) and isinstance(result.get("stdout"), str):
        lines = result["stdout"].strip().splitlines()
        return compact(lines[-1]) if lines else ""
    if isinstance(result, Mapping) and isinstance(result.get("text"), str):
        return gist(result["text"])
    return gist(result)
