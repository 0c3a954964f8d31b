"""YAML with lines: the plain data of YAML's safe subset, and nothing that runs code, repeats keys or blows up."""

from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from agentos.core.plan.document import MAX_CHARACTERS, MAX_DEPTH, TOO_LARGE_NUMBER, Node, Problems, inside, shown

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_VALUES = 100_000
_MAX_EXPANDED = 8 * MAX_CHARACTERS
_TAG = "tag:yaml.org,2002:"
_TEXTS = {_TAG + name for name in ("str", "value", "merge")}
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float")}


def read_yaml(text: str, problems: Problems) -> Node:
    """The document in `text`. Raises InvalidPlan: if it is no YAML, or nested too deeply, or too large with aliases."""
    try:
        _check_depth(text, problems)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = text.count("\n", 0, len(text.rstrip())) + 1  # a missing bracket is missed on the line after the end
        problems.stop(
            min(_line(mark), last) if mark else 1, f"not YAML: {' '.join(filter(None, (error.context, error.problem)))}"
        )
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        position = getattr(error, "position", None) or getattr(error, "start", 0)
        problems.stop(text.count("\n", 0, position) + 1, f"not YAML: {str(error).splitlines()[0]}")
    if root is None:
        problems.stop(1, "the plan is empty")
    return _Reader(problems).node(root, "", _line(root.start_mark))


def _check_depth(text: str, problems: Problems) -> None:
    """Before composing, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                problems.stop(_line(event.start_mark), f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(mark: Any) -> int:
    return int(mark.line) + 1


class _Reader:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._above: list[int] = []
        self._values = self._characters = 0
        self._constructor = yaml.constructor.SafeConstructor()

    def node(self, node: yaml.Node, path: str, line: int) -> Node:
        if id(node) in self._above or len(self._above) > MAX_DEPTH:
            self._problems.stop(line, "an alias stands inside what it names", path)
        self._count(node, line, path)
        self._above.append(id(node))
        try:
            if isinstance(node, MappingNode) and node.tag == _TAG + "map":
                return Node(self._mapping(node, path), line)
            if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
                return Node(self._sequence(node, path), line)
            if isinstance(node, ScalarNode):
                return self._scalar(node, path, line)
            return self._refused(node, path, line)
        finally:
            self._above.pop()

    def _count(self, node: yaml.Node, line: int, path: str) -> None:
        """Aliases can make a small text a huge document."""
        self._values += 1
        self._characters += len(node.value) if isinstance(node, ScalarNode) else 0
        if self._values > _MAX_VALUES or self._characters > _MAX_EXPANDED:
            self._problems.stop(
                line, f"more than {_MAX_VALUES} values or {_MAX_EXPANDED} characters, aliases counted", path
            )

    def _sequence(self, node: SequenceNode, path: str) -> list[Node]:
        return [self.node(each, inside(path, i), _line(each.start_mark)) for i, each in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = _line(key_node.start_mark)
            if key_node.tag == _TAG + "merge":
                for key, value in self._merge(value_node, path, line).items():
                    merged.setdefault(key, value)
                continue
            if not isinstance(key_node, ScalarNode) or key_node.tag not in _TEXTS:
                self._problems.add(line, path, f"a key must be a string: {self._quote_it(key_node)}")
                continue
            key = key_node.value
            if key in own:
                self._problems.add(line, inside(path, key), f"the key is there twice, first on line {own[key].line}")
                continue
            self._problems.check_scalar(key, line, path)
            own[key] = self.node(value_node, inside(path, key), line)
        return merged | own

    def _merge(self, node: yaml.Node, path: str, line: int) -> dict[str, Node]:
        """What `<<: *defaults` or `<<: [*one, *other]` adds; the first to name a key wins."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        found: dict[str, Node] = {}
        for source in sources:
            value = self.node(source, path, line).value
            if not isinstance(value, dict):
                self._problems.add(line, path, "<< takes a mapping, or a list of mappings")
                continue
            found = value | found
        return found

    def _scalar(self, node: ScalarNode, path: str, line: int) -> Node:
        if node.tag in _TEXTS:
            self._problems.check_scalar(node.value, line, path)
            return Node(node.value, line)
        if node.tag not in _SCALARS:
            return self._refused(node, path, line)
        try:
            value = self._constructor.construct_object(node)
        except ValueError:
            self._problems.add(line, path, TOO_LARGE_NUMBER if node.tag == _TAG + "int" else "not a value")
            return Node(None, line)
        self._problems.check_scalar(value, line, path)
        return Node(value, line)

    def _refused(self, node: yaml.Node, path: str, line: int) -> Node:
        if node.tag == _TAG + "timestamp":
            self._problems.add(line, path, f"a date is no JSON value: {self._quote_it(node)}")
        else:
            self._problems.add(line, path, f"the tag {shown(node.tag.replace(_TAG, '!!'))} is not allowed in a plan")
        return Node(None, line)

    def _quote_it(self, node: yaml.Node) -> str:
        return f"write {shown(node.value)}" if isinstance(node, ScalarNode) else "write a string"
