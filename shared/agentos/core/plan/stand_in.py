"""The stand-in planner: real work items for any task, without a model. Only the planning is a stand-in."""

import json
import re
import shlex
from hashlib import sha256
from typing import Any

from agentos.core.plan.model import Plan
from agentos.core.plan.planner import PAYLOAD_LINE, TASK_LINE, parse_model_plan, planning_prompt
from agentos.core.plan.schema import MAX_TITLE

_INSPECT = "printf 'task: %s\\n' {title} && uname -sm && printf 'in %s\\n' \"$(pwd)\""
_SUM = "i=0; s=0; while [ $i -lt 1000 ]; do i=$((i + 1)); s=$((s + i)); done"
_COMPUTE = _SUM + "; printf 'input %s, the sum of 1 to 1000 is %s\\n' {input} \"$s\""
_VERIFY = _SUM + "; [ \"$s\" -eq 500500 ] && printf 'verified for input %s\\n' {input}"


def stand_in_plan(title: str, payload: dict[str, Any]) -> Plan:
    """Three small commands in a row that record the environment, compute something and verify it; no files, no network.

    The same for the same arguments. Goes the way that a model's plan goes: prompt, answer, check.
    Raises InvalidValue or ValueTooLarge: if `payload` is no JSON.
    """
    return parse_model_plan(stand_in_plan_json(planning_prompt(title, payload)))


def stand_in_plan_json(prompt: str) -> str:
    """What a model would answer to `prompt`: the stand-in plan as JSON. Any other prompt is taken as the title."""
    title = _title(prompt)
    mark = sha256((_line(prompt, PAYLOAD_LINE) or prompt).encode("utf-8", errors="surrogatepass")).hexdigest()[:12]
    words = {"title": shlex.quote(_one_line(title)), "input": mark}
    steps = (("inspect", _INSPECT), ("compute", _COMPUTE), ("verify", _VERIFY))
    items = []
    before: list[str] = []
    for key, command in steps:
        items.append(_item(key, command.format(**words), before))
        before = [key]
    return json.dumps({"title": title, "items": items}, indent=2)


def _item(key: str, command: str, depends_on: list[str]) -> dict[str, Any]:
    claim = {
        "type": "COMMAND_EXIT",
        "description": f"{key} succeeded",
        "expected": {"exit_code": 0},
        "metadata": {"command": command},
    }
    return {"key": key, "command": command, "depends_on": depends_on, "timeout": 60, "evidence": [claim]}


def _title(prompt: str) -> str:
    try:
        title = json.loads(_line(prompt, TASK_LINE) or "")
    except ValueError:  # not of `planning_prompt`
        title = _one_line(prompt)
    return title[:MAX_TITLE] if isinstance(title, str) and title.strip() else "a task without a title"


def _line(prompt: str, start: str) -> str | None:
    found = re.search(f"^{re.escape(start)}(.*)$", prompt, re.MULTILINE)
    return found[1] if found else None


def _one_line(text: str) -> str:
    """`text` as one line that a command may hold: without control characters and lone surrogates."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:200]
