"""Reading the fields of one object of a plan; each reader returns a value or says why the field has none."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from agentos.core.plan.document import Node, Problems, did_you_mean, inside, shown
from agentos.core.plan.schema import DURATION_PATTERN, MAX_TIMEOUT_S, VARIABLE_PATTERN
from agentos.store.canonical import canonical
from agentos.store.errors import InvalidValue, ValueTooLarge

T = TypeVar("T")
Read = Callable[[Node], T]

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Unfit(Exception):
    """Why a field cannot be used; ends up in Problems with the field's place."""


class Fields:
    """The fields of the object at `path`, unknown ones refused."""

    def __init__(self, node: Node, path: str, problems: Problems, known: list[str]) -> None:
        self.path, self.line = path, node.line
        self._problems = problems
        self._nodes: dict[str, Node] = {}
        if not isinstance(node.value, dict):
            problems.add(node.line, path, f"must be an object, it is {kind_of(node)}")
            return
        for name, value in node.value.items():
            if name in known:
                self._nodes[name] = value
            else:
                message = f"there is no such field{did_you_mean(name, known)}; the fields are {', '.join(known)}"
                problems.add(value.line, inside(path, name), message)

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def node(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def add(self, name: str, message: str) -> None:
        """A problem of the field `name`, on its line, or on that of the whole object if it is not there."""
        node = self._nodes.get(name)
        self._problems.add(node.line if node else self.line, inside(self.path, name), message)

    def take(self, name: str, read: Read[T], default: T) -> T:
        """The field `name`, or `default` if it is missing or unfit (which is a problem then)."""
        node = self._nodes.get(name)
        if node is None:
            return default
        try:
            return read(node)
        except Unfit as unfit:
            self.add(name, str(unfit))
            return default


def kind_of(node: Node) -> str:
    """What a value is, in words: for "must be a string, it is …"."""
    value = node.value
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"a number ({_figures(value)})"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"


def _figures(value: float) -> str:
    digits = str(value)
    return digits if len(digits) <= 20 else digits[:20] + "…"


def text(node: Node) -> str:
    if not isinstance(node.value, str):
        quote = ": put it in quotes" if isinstance(node.value, int | float) else ""
        raise Unfit(f"must be a string, it is {kind_of(node)}{quote}")
    if not node.value.strip():
        raise Unfit("must not be empty")
    return node.value


def text_up_to(limit: int) -> Read[str]:
    def read(node: Node) -> str:
        value = text(node)
        if len(value) > limit:
            raise Unfit(f"must have at most {limit} characters, it has {len(value)}")
        return value

    return read


def name_like(pattern: str) -> Read[str]:
    def read(node: Node) -> str:
        value = text(node)
        if not re.fullmatch(pattern, value):
            raise Unfit(f"{shown(value)} does not match {pattern}")
        return value

    return read


def whole_number(lowest: int, highest: int) -> Read[int]:
    def read(node: Node) -> int:
        value = node.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Unfit(f"must be a whole number, it is {kind_of(node)}")
        if not lowest <= value <= highest:
            raise Unfit(f"must be from {lowest} to {highest}, it is {_figures(value)}")
        return value

    return read


def duration(node: Node) -> float:
    """Seconds, from a number of them or a text such as "1h30m"."""
    value = node.value
    if isinstance(value, str):
        if not re.fullmatch(DURATION_PATTERN, value):
            raise Unfit(f'{shown(value)} is no duration: write seconds, or "90s", "5m", "1h30m"')
        parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", value)
        value = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Unfit(f'must be seconds, or a duration such as "5m"; it is {kind_of(node)}')
    if not 0 < value <= MAX_TIMEOUT_S:
        raise Unfit(f"must be more than 0 and at most {MAX_TIMEOUT_S} seconds (30 days), it is {_figures(value)}")
    return float(value)


def command(node: Node) -> str | list[str]:
    if not isinstance(node.value, list):
        return text(node)
    words = [word.value for word in node.value if isinstance(word.value, str)]
    if not words or len(words) < len(node.value):
        raise Unfit("must be a string, or a list of strings that is not empty")
    return words


def variables(node: Node) -> dict[str, str]:
    found = {}
    for name, value in _object(node).items():
        if not re.fullmatch(VARIABLE_PATTERN, name):
            raise Unfit(f"{shown(name)} is no name of a variable")
        if not isinstance(value.value, str):
            raise Unfit(f"the value of {name} must be a string, it is {kind_of(value)}: put it in quotes")
        found[name] = value.value
    return found


def payload(node: Node) -> dict[str, Any]:
    value = {name: member.plain() for name, member in _object(node).items()}
    try:
        canonical(value, what="it")
    except (InvalidValue, ValueTooLarge) as error:
        raise Unfit(error.message) from None
    return value


def _object(node: Node) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise Unfit(f"must be an object, it is {kind_of(node)}")
    return node.value
