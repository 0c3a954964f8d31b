"""The payload of `agentos submit`: read and checked before anything has happened."""

import sys
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from agentos.store.canonical import loads
from agentos.store.errors import InvalidArguments, InvalidInput, InvalidValue

_EXAMPLES = {
    "shell": """'{"command": "date"}'""",
    "llm": """'{"prompt": "Explain tides in one line"}'""",
    "plan": """'{"goal": "Audit the logs"}'""",
}
_ANY = """'{"topic": "tides"}'"""
_REQUIRED = {"shell": "command", "llm": "prompt", "plan": "goal"}


def read_payload(kind: str, given: str) -> dict[str, Any]:
    """The object that was passed: JSON, @FILE, or - for stdin.

    Raises InvalidInput: if it cannot be read or is no JSON object. InvalidArguments: if a built-in kind needs more.
    """
    hint = f"pass a JSON object, such as {_EXAMPLES.get(kind, _ANY)}"
    value = _parsed(_text(given), hint)
    if not isinstance(value, dict):
        raise InvalidInput(f"the payload is a JSON {type(value).__name__}, not an object", hint=hint)
    _require(kind, value)
    return value


def _text(given: str) -> str | bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{given[1:]} cannot be read: {error.strerror}", hint="@FILE reads the payload from a file"
        ) from error


def _parsed(text: str | bytes, hint: str) -> Any:
    if not text.strip():
        raise InvalidInput("the payload is not JSON: it is empty", hint=hint)
    try:
        return loads(text, what="the payload")
    except InvalidValue as error:
        cause = error.__context__
        if isinstance(cause, JSONDecodeError):
            place = f"(line {cause.lineno}, column {cause.colno})"
            raise InvalidInput(f"the payload is not JSON: {cause.msg} {place}", hint=hint) from None
        if isinstance(cause, UnicodeDecodeError):
            raise InvalidInput(f"the payload is not JSON: byte {cause.start} is not UTF-8", hint=hint) from None
        raise InvalidInput(error.message, hint=error.hint or hint) from None


def _require(kind: str, payload: dict[str, Any]) -> None:
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
        f"the payload of {kind} cannot be used: {what}", hint=f"pass one, as in agentos submit {kind} {_EXAMPLES[kind]}"
    )
