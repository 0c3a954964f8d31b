"""A JSON-like document that knows the line of each of its values, and the list of what is wrong with it."""

import math
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn

from agentos.store.canonical import MAX_INTEGER_DIGITS
from agentos.store.errors import InvalidPlan

MAX_DEPTH = 50
MAX_CHARACTERS = 1024 * 1024
"""Of a plan as text."""
_SHOWN = 50
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line, from 1, on which it (or in an object: its key) stands."""

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True)
class Problems:
    """What is wrong with the document `source`, found place by place."""

    source: str
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, path: str, message: str) -> None:
        self.found.append((line, f"{path}: {message}" if path else message))

    def stop(self, line: int, message: str, path: str = "") -> NoReturn:
        """Nothing after this can be understood. Raises InvalidPlan, with what was found before."""
        self.add(line, path, message)
        self.refuse()
        raise AssertionError("unreachable: there is a problem")

    def refuse(self) -> None:
        """Raises InvalidPlan: if anything was found; `detail` has one line for each place."""
        if not self.found:
            return
        lines = [f"{self.source}:{line}: {message}" for line, message in sorted(self.found, key=lambda each: each[0])]
        shown = "\n".join(lines[:_SHOWN])
        if len(lines) > _SHOWN:
            shown += f"\n… and {len(lines) - _SHOWN} more"
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise InvalidPlan(
            f"{self.source} has {count}; nothing was created", detail=shown, hint="correct the plan and submit it again"
        )

    def check_scalar(self, value: Scalar, line: int, path: str) -> None:
        """Finds what JSON in Postgres cannot hold."""
        if isinstance(value, str):
            self._check_text(value, line, path)
        elif isinstance(value, float) and not math.isfinite(value):
            self.add(line, path, f"{value} is no JSON number")

    def _check_text(self, text: str, line: int, path: str) -> None:
        if "\x00" in text:
            self.add(line, path, "a NUL character cannot be stored")
        if _LONE_SURROGATE.search(text):
            self.add(line, path, "a lone surrogate (half a character) cannot be stored")


def inside(path: str, key: str | int) -> str:
    """The path of an element: items[2].depends_on, payload["two words"]."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


def shown(text: str) -> str:
    """`text` in quotes and not too long."""
    cut = text if len(text) <= 60 else text[:60] + "…"
    return '"' + cut.encode("unicode_escape", errors="backslashreplace").decode("ascii").replace('"', '\\"') + '"'


def did_you_mean(name: str, known: list[str]) -> str:
    """` (did you mean "build"?)`, or nothing if none of `known` is near."""
    near = get_close_matches(name[:128], known, n=1)
    return f" (did you mean {shown(near[0])}?)" if near else ""


TOO_LARGE_NUMBER = f"the number has more than {MAX_INTEGER_DIGITS} digits"
