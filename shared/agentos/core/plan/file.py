"""Plan files, YAML or JSON."""

import os
from pathlib import Path

from agentos.core.plan.build import build_plan
from agentos.core.plan.document import MAX_CHARACTERS, Node, Problems
from agentos.core.plan.json_document import NotJSON, json_node, read_json
from agentos.core.plan.model import Plan
from agentos.store.errors import InvalidPlan

_TOO_LARGE = f"a plan may have {MAX_CHARACTERS} characters: give large inputs to its items as files"


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in the file `path` (UTF-8). Its default title is the file's name without its ending.

    Raises InvalidPlan: if it cannot be read, or has mistakes; `detail` has one line for each: `plan.yaml:12: …`.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(4 * MAX_CHARACTERS + 1)
    except OSError as error:
        raise InvalidPlan(
            f"the plan {name!r} cannot be read: {error.strerror}", hint="pass the path of a YAML or JSON plan"
        ) from error
    if len(data) > 4 * MAX_CHARACTERS:
        raise InvalidPlan(f"the plan {name!r} is larger than {4 * MAX_CHARACTERS} bytes", hint=_TOO_LARGE)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidPlan(
            f"the plan {name!r} is not UTF-8 (line {line}, byte {error.start})", hint="save it as UTF-8"
        ) from None
    return parse_plan(text, name)


def parse_plan(text: str, source: str = "plan") -> Plan:
    """The plan in `text`, YAML or JSON. `source` names it in errors, and its stem is the default title.

    Raises InvalidPlan: if it has mistakes; `detail` has one line for each: `source:12: items[2].depends_on: …`.
    """
    problems = Problems(source)
    if len(text) > MAX_CHARACTERS:
        raise InvalidPlan(f"{source} has {len(text)} characters", hint=_TOO_LARGE)
    root = _read(text, source, problems)
    plan = build_plan(root, problems, default_title=Path(source).stem or "plan")
    problems.refuse()
    return plan


def _read(text: str, source: str, problems: Problems) -> Node:
    if source.endswith(".json"):
        return read_json(text, problems)
    if text.lstrip().startswith("{"):  # JSON, or YAML in its JSON-like style; JSON knows escapes that YAML does not
        attempt = Problems(source)
        try:
            node = json_node(text, attempt)
        except NotJSON:
            return _read_yaml(text, problems)
        problems.found.extend(attempt.found)
        return node
    return _read_yaml(text, problems)


def _read_yaml(text: str, problems: Problems) -> Node:
    from agentos.core.plan.yaml_document import read_yaml  # noqa: PLC0415  workers import this module, and read no file

    return read_yaml(text, problems)
