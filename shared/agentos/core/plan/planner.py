"""A model as planner: what it is asked, and what is taken from its answer."""

import json
import re
from typing import Any, cast

from agentos.core.plan.build import build_plan
from agentos.core.plan.document import MAX_CHARACTERS, Node, Problems, inside
from agentos.core.plan.json_document import read_json
from agentos.core.plan.model import Plan
from agentos.core.plan.schema import PLAN_SCHEMA
from agentos.store.canonical import canonical_text
from agentos.store.errors import InvalidPlan

SOURCE = "the model's plan"
TASK_LINE, PAYLOAD_LINE = "Task: ", "Input: "
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


def planning_prompt(title: str, payload: dict[str, Any]) -> str:
    """What a model is asked, the same text for the same task: the LLM cache finds its plan by it.

    Raises InvalidValue or ValueTooLarge: if `payload` is no JSON.
    """
    return "\n".join(
        (
            "Plan the task below as work items that independent workers can run. Answer with one JSON object that fits",
            "the JSON Schema at the end, and with nothing else. Keep items small; let an item depend on those whose",
            "results it needs; give each command evidence that shows whether it worked.",
            "",
            TASK_LINE + canonical_text(title, what="the title"),
            PAYLOAD_LINE + canonical_text(payload, what="the payload"),
            "",
            "JSON Schema:",
            json.dumps(PLAN_SCHEMA),
        )
    )


def parse_model_plan(text: str) -> Plan:
    """The plan in a model's answer: a JSON object, alone, in a ``` block, or with words around it.

    Raises InvalidPlan: if there is none, it does not fit PLAN_SCHEMA, or its items do not fit together; `detail` has
    one line for each place, by the lines of the answer. Nothing has been created then.
    """
    problems = Problems(SOURCE)
    if len(text) > MAX_CHARACTERS:
        raise InvalidPlan(f"{SOURCE} has {len(text)} characters", hint=f"{MAX_CHARACTERS} are the limit: ask for less")
    body, first_line = _json_part(text)
    root = read_json(body, problems, first_line=first_line)
    plan = build_plan(root, problems, default_title="plan")
    if not problems.found:
        _check_schema(root, problems)
    problems.refuse()
    return plan


def _json_part(text: str) -> tuple[str, int]:
    """The JSON in `text` and the line on which it begins."""
    if text.lstrip().startswith("{"):
        return text, 1
    blocks = [found for found in _FENCE.finditer(text) if found[1].lstrip().startswith("{")]
    if len(blocks) > 1:
        raise InvalidPlan(
            f"{SOURCE} is not one: the answer has {len(blocks)} JSON blocks", hint="ask again for one plan"
        )
    if blocks:
        return blocks[0][1], text.count("\n", 0, blocks[0].start(1)) + 1
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        said = " ".join(text.split())[:200]
        raise InvalidPlan(
            "the model answered without a plan: there is no JSON object in its answer",
            hint="ask again, or use another model",
            detail=f"It said: {said}" if said else "It said nothing.",
        )
    return text[start : end + 1], text.count("\n", 0, start) + 1


def _check_schema(root: Node, problems: Problems) -> None:
    """The net below the checks of `build_plan`, which say the same in better words and are tested to agree."""
    import jsonschema  # noqa: PLC0415  start-up: 0.2 s, and only a plan of a model needs it

    for error in jsonschema.Draft202012Validator(PLAN_SCHEMA).iter_errors(root.plain()):
        node, path = root, ""
        for key in error.absolute_path:
            path = inside(path, key)
            node = cast(Any, node.value)[key]
        problems.add(node.line, path, error.message[:200])
