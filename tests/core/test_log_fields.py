"""The fields of our log lines: one set of names, which docs/logs.md lists."""

import ast
import io
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from tests.core.test_logs import lines, logging_as_before

from agentos.core.lease import Lease, holding
from agentos.core.logs import configure_logs, get_logger
from agentos.store.calls.items import Fence

__all__ = ["logging_as_before"]  # a fixture
ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
OF_AN_ITEM = {"task_id", "item_id", "attempt", "queue", "kind", "key", "worker_id", "trace_id", "span_id"}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a module's logger."""
    for folder in ("shared", "worker", "coordinator"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=attr)) if attr in LEVELS:
                        yield path, node


def fields() -> dict[str, list[str]]:
    """Where each field is named."""
    found = defaultdict(list)
    for path, call in calls():
        for keyword in call.keywords:
            extra = keyword.value if keyword.arg == "extra" else None
            names = (
                [ast.literal_eval(key) for key in extra.keys if key] if isinstance(extra, ast.Dict) else [keyword.arg]
            )
            for name in names:
                found[str(name)].append(f"{path.relative_to(ROOT)}:{call.lineno}")
    return {name: places for name, places in found.items() if name != "exc_info"}


def test_every_field_is_one_of_the_list_and_none_is_listed_in_vain() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    used = fields()
    assert {name: used[name] for name in used.keys() - listed} == {}
    assert listed - used.keys() - OF_AN_ITEM == set()


def test_the_text_of_a_line_is_constant() -> None:
    """What differs from line to line is a field, so that a search for the text finds them all."""
    assert [
        f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls()
        if not (call.args and isinstance(call.args[0], ast.Constant))
    ] == []  # fmt: skip


@pytest.mark.usefixtures("logging_as_before")
def test_what_a_handler_logs_names_its_item() -> None:
    stream = io.StringIO()
    configure_logs("json", stream=stream)
    lease = Lease(Fence(3, 7, uuid4()), "task-1", 2, "slow", "work")
    with holding(lease):
        get_logger("agentos.test").info("ours", kind="mine")
        structlog.get_logger("app").info("the app's")
        logging.getLogger("library").warning("a library's")
    get_logger("agentos.test").info("outside")
    found = {line["event"]: line for line in lines(stream)}
    wanted = {"task_id": "task-1", "item_id": 3, "worker_id": 7, "attempt": 2, "queue": "slow", "kind": "work"}
    assert wanted.items() <= found["the app's"].items()
    assert wanted.items() <= found["a library's"].items()
    assert (found["ours"]["kind"], found["ours"]["item_id"]) == ("mine", 3)
    assert "task_id" not in found["outside"]
