"""The items of `create_task(items=…)`: what each may say, and that they fit together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentos.core.plan.document import Problems, did_you_mean, inside
from agentos.core.plan.graph import Entry, check_graph
from agentos.store.calls import tasks
from agentos.store.canonical import canonical_text
from agentos.store.run import Call
from agentos.store.sealed_items import plain_array

_FIELDS = ("key", "kind", "payload", "depends_on", "queue", "max_attempts", "timeout_s", "version")
_ALIKE = {"key", "kind", "payload"}
_PLAIN = {"kind", "payload"}
_NONE: dict[str, Any] = {}


def checked_items(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items with a key each. Raises InvalidPlan: with every mistake, by item; nothing has been created then."""
    problems = Problems("items")
    listed = [_item(each, number, problems) for number, each in enumerate(items, start=1)]
    if any("depends_on" in item for item in listed) or len({item["key"] for item in listed}) < len(listed):
        check_graph(_entries(listed), problems)
    problems.refuse()
    return listed


def calls_of(
    task_id: str, listed: Sequence[Mapping[str, Any]], size: int, limit: int, *, queue: str, priority: int
) -> Iterator[Call[int]]:
    """The calls that add them to a task, so many items at a time. None of them may depend on another.

    Raises InvalidValue: if JSON cannot hold a payload. ValueTooLarge: if the payloads have more than `limit` bytes.
    """
    how: dict[str, Any] = {"queue": queue, "priority": priority}
    for start in range(0, len(listed), size):
        batch = listed[start : start + size]
        payloads = [item.get("payload", _NONE) for item in batch]
        kind = batch[0]["kind"]
        alike = all(item["kind"] == kind and item.keys() <= _ALIKE for item in batch)
        if alike and (array := plain_array(payloads, limit)) is not None:
            limit -= len(array) - len(batch) - 1
            yield tasks.add_alike(task_id, kind, [item["key"] for item in batch], array, **how)
            continue
        texts = []
        for at, payload in enumerate(payloads, start=start):
            texts.append(canonical_text(payload, limit=limit, what=f"payload of {inside('items', at)}"))
            limit -= len(texts[-1])
        if alike:
            yield tasks.add_alike(task_id, kind, [item["key"] for item in batch], texts, **how)
        else:
            yield tasks.add_items(task_id, [_columns(*each) for each in zip(batch, texts, strict=True)], **how)


def _columns(item: Mapping[str, Any], payload: str) -> tasks.NewItem:
    return (
        item["key"], item["kind"], payload, item.get("queue"), item.get("max_attempts"), item.get("timeout_s"),
        item.get("version"),
    )  # fmt: skip


def _entries(listed: list[dict[str, Any]]) -> list[Entry]:
    return [
        Entry(inside("items", at), item["key"], at + 1, [(name, at + 1) for name in item.get("depends_on", ())])
        for at, item in enumerate(listed)
    ]


def _item(given: object, number: int, problems: Problems) -> dict[str, Any]:
    item: dict[str, Any] = {"key": f"item-{number}"}
    if type(given) is dict and given.keys() <= _PLAIN and _text(given.get("kind")):  # most are; a third of the time
        item.update(given)
        if item.get("payload", _NONE) is None:
            del item["payload"]
        return item
    if not isinstance(given, Mapping):
        problems.add(number, _path(number), f"is of type {type(given).__name__}, not a dict")
        return item
    for name, value in given.items():
        if name not in _FIELDS:
            message = f"has no field {name!r}{did_you_mean(str(name), list(_FIELDS))}"
            problems.add(number, _path(number), message)
        elif value is not None and (name not in _RULES or _fits(name, value, number, problems)):
            item[name] = value
    if given.get("kind") is None:
        problems.add(number, _path(number), "has no kind")
    if not item.get("depends_on", True):
        del item["depends_on"]
    return item


def _fits(name: str, value: object, number: int, problems: Problems) -> bool:
    """What does not fit is told and left out; the graph is checked with what is usable."""
    fits, wanted = _RULES[name]
    if fits(value):
        return True
    problems.add(number, inside(_path(number), name), f"must be {wanted}, it is {value!r:.60}")
    return False


def _path(number: int) -> str:
    return inside("items", number - 1)


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= 255


def _names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _attempts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000


def _version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 30 * 86_400


_RULES = {
    "key": (_text, "a text of 1 to 255 characters"),
    "kind": (_text, "a text of 1 to 255 characters"),
    "queue": (_text, "a text of 1 to 255 characters"),
    "depends_on": (_names, "a list of keys"),
    "max_attempts": (_attempts, "a whole number from 1 to 1000"),
    "timeout_s": (_seconds, "a number of seconds above 0, at most 30 days"),
    "version": (_version, "a whole number from 0 to 1000000"),
}
