"""The items of `create_task(items=…)`: what each may say, and that they fit together."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentos.core.plan.document import Problems, did_you_mean, inside
from agentos.core.plan.graph import Entry, check_graph

_FIELDS = ("key", "kind", "payload", "depends_on", "queue", "max_attempts", "timeout_s")


def checked_items(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items with a key each. Raises InvalidPlan: with every mistake, by item; nothing has been created then."""
    problems = Problems("items")
    listed = [_item(each, number, problems) for number, each in enumerate(items, start=1)]
    entries = [
        Entry(inside("items", at), item["key"], at + 1, [(name, at + 1) for name in item["depends_on"]])
        for at, item in enumerate(listed)
    ]
    check_graph(entries, problems)
    problems.refuse()
    return listed


def _item(given: object, number: int, problems: Problems) -> dict[str, Any]:
    path = inside("items", number - 1)
    item: dict[str, Any] = {"key": f"item-{number}", "depends_on": []}
    if not isinstance(given, Mapping):
        problems.add(number, path, f"is of type {type(given).__name__}, not a dict")
        return item
    for name in given:
        if name not in _FIELDS:
            problems.add(number, path, f"has no field {name!r}{did_you_mean(str(name), list(_FIELDS))}")
    item |= {name: given[name] for name in _FIELDS if given.get(name) is not None}
    for name, (fits, wanted) in _RULES.items():
        if name in item and not fits(item[name]):
            problems.add(number, inside(path, name), f"must be {wanted}, it is {item[name]!r:.60}")
    if "kind" not in item:
        problems.add(number, path, "has no kind")
    if not isinstance(item["key"], str) or not _names(item["depends_on"]):
        item |= {"key": f"item-{number}", "depends_on": []}  # told above; the graph is checked with what is usable
    return item


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= 255


def _names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _attempts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 30 * 86_400


_RULES = {
    "key": (_text, "a text of 1 to 255 characters"),
    "kind": (_text, "a text of 1 to 255 characters"),
    "queue": (_text, "a text of 1 to 255 characters"),
    "depends_on": (_names, "a list of keys"),
    "max_attempts": (_attempts, "a whole number from 1 to 1000"),
    "timeout_s": (_seconds, "a number of seconds above 0, at most 30 days"),
}
