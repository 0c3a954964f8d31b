"""JSON with lines. The json module gives the values but not their places, so the brackets are read here."""

import json
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from agentos.core.plan.document import MAX_DEPTH, TOO_LARGE_NUMBER, Node, Problems, inside

_SPACE = re.compile(r"[ \t\n\r]*")


class NotJSON(Exception):
    """Where, as an index into the text, and why."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message, self.position = message, position


def read_json(text: str, problems: Problems, *, first_line: int = 1) -> Node:
    """The document in `text`, whose first line is `first_line`. Raises InvalidPlan: if it is no JSON."""
    try:
        return json_node(text, problems, first_line=first_line)
    except NotJSON as error:
        problems.stop(first_line + text.count("\n", 0, error.position), f"not JSON: {error.message}")


def json_node(text: str, problems: Problems, *, first_line: int = 1) -> Node:
    """`read_json` for a text that may be something else. Raises NotJSON: if it is."""
    reader = _Reader(text, problems, first_line)
    node, end = reader.value(reader.skip(0), "", 0)
    if reader.skip(end) != len(text):
        raise NotJSON("something follows the end of the document", reader.skip(end))
    return node


class _Reader:
    def __init__(self, text: str, problems: Problems, first_line: int) -> None:
        self._text = text
        self._problems = problems
        self._first_line = first_line
        self._newlines = [found.start() for found in re.finditer("\n", text)]
        self._scalar: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(parse_constant=_no_constant).raw_decode

    def skip(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        return found.end() if found else position

    def line(self, position: int) -> int:
        return self._first_line + bisect_right(self._newlines, position)

    def value(self, position: int, path: str, depth: int) -> tuple[Node, int]:
        line = self.line(position)
        if depth > MAX_DEPTH:
            self._problems.stop(line, f"nested deeper than {MAX_DEPTH} levels", path)
        opening = self._text[position : position + 1]
        if opening == "{":
            members, end = self._object(position + 1, path, depth)
            return Node(members, line), end
        if opening == "[":
            elements, end = self._array(position + 1, path, depth)
            return Node(elements, line), end
        value, end = self._plain(position, path)
        self._problems.check_scalar(value, line, path)
        return Node(value, line), end

    def _plain(self, position: int, path: str) -> tuple[Any, int]:
        try:
            return self._scalar(self._text, position)
        except json.JSONDecodeError as error:
            raise NotJSON(error.msg[0].lower() + error.msg[1:], error.pos) from None
        except _Constant as error:
            raise NotJSON(f"{error} is no JSON value", position) from None
        except ValueError:
            self._problems.stop(self.line(position), TOO_LARGE_NUMBER, path)

    def _array(self, position: int, path: str, depth: int) -> tuple[list[Node], int]:
        elements: list[Node] = []
        position = self.skip(position)
        if self._text.startswith("]", position):
            return elements, position + 1
        while True:
            element, position = self.value(self.skip(position), inside(path, len(elements)), depth + 1)
            elements.append(element)
            position, closed = self._next(position, "]")
            if closed:
                return elements, position

    def _object(self, position: int, path: str, depth: int) -> tuple[dict[str, Node], int]:
        members: dict[str, Node] = {}
        position = self.skip(position)
        if self._text.startswith("}", position):
            return members, position + 1
        while True:
            key, line, position = self._key(self.skip(position), path)
            member, position = self.value(self.skip(position), inside(path, key), depth + 1)
            if key in members:
                message = f"the key is there twice, first on line {members[key].line}"
                self._problems.add(line, inside(path, key), message)
            else:
                members[key] = Node(member.value, line)
            position, closed = self._next(position, "}")
            if closed:
                return members, position

    def _key(self, position: int, path: str) -> tuple[str, int, int]:
        if not self._text.startswith('"', position):
            raise NotJSON("a key in double quotes is missing", position)
        key, end = self._plain(position, path)
        colon = self.skip(end)
        if not self._text.startswith(":", colon):
            raise NotJSON("a colon is missing after the key", colon)
        self._problems.check_scalar(key, self.line(position), path)
        return key, self.line(position), colon + 1

    def _next(self, position: int, closing: str) -> tuple[int, bool]:
        """The position after a comma or the closing bracket, and whether it was the bracket."""
        position = self.skip(position)
        found = self._text[position : position + 1]
        if found not in (",", closing) or not found:
            raise NotJSON(f"a comma or {closing} is missing", position)
        return position + 1, found == closing


class _Constant(Exception):
    """NaN or Infinity, which the json module would take."""


def _no_constant(name: str) -> None:
    raise _Constant(name)
