"""What the payload of a built-in kind needs, checked where a task is submitted."""

from collections.abc import Mapping
from typing import Any

from agentos.store.errors import InvalidArguments

EXAMPLES = {
    "shell": """'{"command": "date"}'""",
    "llm": """'{"prompt": "Explain tides in one line"}'""",
    "plan": """'{"goal": "Audit the logs"}'""",
}
BUILT_IN = tuple(EXAMPLES)
_REQUIRED = {"shell": "command", "llm": "prompt", "plan": "goal"}


def check_payload(kind: str, payload: Mapping[str, Any]) -> None:
    """Raises InvalidArguments: if a built-in kind needs more. Those of handlers are checked by their signature."""
    key = _REQUIRED.get(kind)
    if key is None:
        return
    value = payload.get(key)
    if isinstance(value, str) and value.strip():
        return
    if kind == "shell" and isinstance(value, list) and value:
        return
    what = f"its {key} is {value!r:.100}" if key in payload else f"it has no {key}"
    raise InvalidArguments(
        f"the payload of {kind} cannot be used: {what}", hint=f"pass one, as in agentos submit {kind} {EXAMPLES[kind]}"
    )
