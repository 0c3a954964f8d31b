"""From a document to a checked Plan: every mistake is found before the plan is refused."""

import re
from typing import Any

from agentos.core.evidence import Evidence, EvidenceType
from agentos.core.plan import fields
from agentos.core.plan.document import Node, Problems, inside, shown
from agentos.core.plan.fields import Fields, Unfit, kind_of
from agentos.core.plan.graph import Entry, check_graph
from agentos.core.plan.model import Plan, PlanItem
from agentos.core.plan.schema import (
    EVIDENCE_FIELDS,
    ITEM_FIELDS,
    ITEM_NEEDS,
    KEY_PATTERN,
    MAX_ATTEMPTS,
    MAX_ITEMS,
    MAX_TITLE,
    NAME_PATTERN,
    PLAN_FIELDS,
)
from agentos.store.errors import InvalidEvidence

_WHATS = ("command", "prompt", "kind")
DEFAULT_MAX_ATTEMPTS = 5


def build_plan(root: Node, problems: Problems, *, default_title: str) -> Plan:
    """The plan in `root`. Only one for which `problems` stayed empty is of use."""
    plan = Fields(root, "", problems, PLAN_FIELDS)
    title = plan.take("title", fields.text_up_to(MAX_TITLE), default_title)
    queue = plan.take("queue", fields.name_like(NAME_PATTERN), None)
    read = [_item(node, inside("items", i), problems, queue) for i, node in enumerate(_items(plan, root))]
    check_graph([entry for _, entry in read], problems)
    return Plan(title, tuple(item for item, _ in read))


def _items(plan: Fields, root: Node) -> list[Node]:
    node = plan.node("items")
    if node is None:
        if isinstance(root.value, dict):
            plan.add("items", "a plan needs a list of items")
        return []
    if not isinstance(node.value, list):
        plan.add("items", f"must be a list, it is {kind_of(node)}")
        return []
    if not 1 <= len(node.value) <= MAX_ITEMS:
        plan.add("items", f"must have from 1 to {MAX_ITEMS} items, it has {len(node.value)}")
    return node.value[:MAX_ITEMS]


def _item(node: Node, path: str, problems: Problems, queue: str | None) -> tuple[PlanItem, Entry]:
    item = Fields(node, path, problems, ITEM_FIELDS)
    if "key" not in item and isinstance(node.value, dict):
        item.add("key", "an item needs a key")
    key = item.take("key", fields.name_like(KEY_PATTERN), "")
    kind, payload = _what(item, node)
    needs: list[tuple[str, int]] = item.take("depends_on", _names, [])
    made = PlanItem(
        key=key,
        kind=kind,
        payload=payload,
        depends_on=tuple(name for name, _ in needs),
        max_attempts=_max_attempts(item),
        timeout_s=item.take("timeout", fields.duration, None),
        queue=item.take("queue", fields.name_like(NAME_PATTERN), queue),
        evidence=_evidence(item, problems, payload.get("command") if kind == "shell" else None),
    )
    key_node = item.node("key")
    return made, Entry(path, key, key_node.line if key_node else node.line, needs)


def _what(item: Fields, node: Node) -> tuple[str, dict[str, Any]]:
    given = [name for name in _WHATS if name in item]
    if len(given) != 1 and isinstance(node.value, dict):
        item.add(given[-1] if given else "command", f"an item needs one of {', '.join(_WHATS)}; it has {len(given)}")
    for name, needed in ITEM_NEEDS.items():
        if name in item and needed not in item:
            item.add(name, f"goes with {needed} only")
    if "command" in item:
        return "shell", _given(item, {"command": fields.command, "cwd": fields.text, "env": fields.variables})
    if "prompt" in item:
        return "llm", _given(item, {"prompt": fields.text, "model": fields.text, "system": fields.text})
    kind = item.take("kind", fields.name_like(NAME_PATTERN), "")
    payload: dict[str, Any] = item.take("payload", fields.payload, {})
    if "evidence" in payload and "evidence" in item:
        item.add("evidence", "the payload has a field evidence of its own, which this would replace")
    return kind, payload


def _given(item: Fields, readers: dict[str, fields.Read[Any]]) -> dict[str, Any]:
    return {name: item.take(name, read, None) for name, read in readers.items() if name in item}


def _max_attempts(item: Fields) -> int:
    if "retries" not in item:
        return item.take("max_attempts", fields.whole_number(1, MAX_ATTEMPTS), DEFAULT_MAX_ATTEMPTS)
    if "max_attempts" in item:
        item.add("retries", "give retries or max_attempts (one more than retries), not both")
    return 1 + item.take("retries", fields.whole_number(0, MAX_ATTEMPTS - 1), 0)


def _names(node: Node) -> list[tuple[str, int]]:
    """The keys that an item depends on, each with its line."""
    if isinstance(node.value, str):
        return [(node.value, node.line)]
    if not isinstance(node.value, list):
        raise Unfit(f"must be a key or a list of keys, it is {kind_of(node)}")
    names = [(name.value, name.line) for name in node.value if isinstance(name.value, str)]
    if len(names) < len(node.value):
        raise Unfit("must be a list of keys, which are strings: put them in quotes")
    return names


def _evidence(item: Fields, problems: Problems, command: object) -> tuple[Evidence, ...]:
    node = item.node("evidence")
    if node is None:
        return ()
    if not isinstance(node.value, list):
        item.add("evidence", f"must be a list, it is {kind_of(node)}")
        return ()
    path = inside(item.path, "evidence")
    claims = [_claim(each, inside(path, i), problems, command) for i, each in enumerate(node.value)]
    return tuple(claim for claim in claims if claim is not None)


def _claim(node: Node, path: str, problems: Problems, command: object) -> Evidence | None:
    claim = Fields(node, path, problems, EVIDENCE_FIELDS)
    if not isinstance(node.value, dict):
        return None
    for name in ("type", "expected"):
        if name not in claim:
            claim.add(name, f"evidence needs {name}")
    described = claim.take("description", _any_text, "")
    expected: dict[str, Any] | None = claim.take("expected", fields.payload, None)
    metadata: dict[str, Any] = claim.take("metadata", fields.payload, {})
    kind = claim.take("type", _evidence_type, None)
    if kind is None or expected is None:
        return None
    if kind is EvidenceType.COMMAND_EXIT and isinstance(command, str) and command:
        # Without it the newest call of the task would count, which may be that of another item.
        metadata = {"command": command} | metadata
    try:
        return Evidence(kind, described, expected, metadata)
    except InvalidEvidence as error:
        claim.add(_place(error.message), error.message + (f": {error.hint}" if error.hint else ""))
        return None


def _place(message: str) -> str:
    found = re.match(r"(expected|metadata|description)\b", message)
    return found[1] if found else "expected"


def _any_text(node: Node) -> str:
    if not isinstance(node.value, str):
        raise Unfit(f"must be a string, it is {kind_of(node)}")
    return node.value


def _evidence_type(node: Node) -> EvidenceType:
    name = fields.text(node)
    try:
        return EvidenceType(name)
    except ValueError:
        raise Unfit(f"must be one of {', '.join(EvidenceType.__members__)}, it is {shown(name)}") from None
