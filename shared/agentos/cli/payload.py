"""The payload of `agentos submit`: read and checked before anything has happened."""

import sys
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from agentos.core.payloads import EXAMPLES, check_payload
from agentos.store.canonical import loads
from agentos.store.errors import InvalidInput, InvalidValue

_ANY = """'{"topic": "tides"}'"""


def read_payload(kind: str, given: str) -> dict[str, Any]:
    """The object that was passed: JSON, @FILE, or - for stdin.

    Raises InvalidInput: if it cannot be read or is no JSON object. InvalidArguments: if a built-in kind needs more.
    """
    hint = f"pass a JSON object, such as {EXAMPLES.get(kind, _ANY)}"
    value = _parsed(_text(given), hint)
    if not isinstance(value, dict):
        raise InvalidInput(f"the payload is a JSON {type(value).__name__}, not an object", hint=hint)
    check_payload(kind, value)
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
