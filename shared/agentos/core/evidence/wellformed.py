"""Is a claim well-formed: the keys and types of `expected` and `metadata`. Nothing here looks at the world."""

import re
from collections.abc import Callable
from typing import Any

from agentos.store.errors import InvalidEvidence

MAX_COLUMNS = 8
_ARTIFACT_TYPES = ("file", "directory")


def check_expected(kind: str, expected: dict[str, Any]) -> None:
    """Raises InvalidEvidence: if `expected` lacks a key, has one that nobody would check, or one of a wrong type."""
    required, optional = _KEYS[kind]
    known = required | optional
    if missing := [key for key in required if key not in expected]:
        raise InvalidEvidence(f"expected of {kind} evidence has no {missing[0]!r}", hint=f"give {_listed(required)}")
    if unknown := [key for key in expected if key not in known]:
        raise InvalidEvidence(f"expected of {kind} evidence has an unknown key {unknown[0]!r}", hint=_known(known))
    for key, value in expected.items():
        if complaint := known[key](value):
            raise InvalidEvidence(f"expected[{key!r}] of {kind} evidence {complaint}, it is {_shown(value)}")


def check_metadata(kind: str, metadata: dict[str, Any]) -> None:
    """Raises InvalidEvidence: if a key that the check reads is of a wrong type. Other keys are the caller's own."""
    for key, value in metadata.items():
        if key in (_METADATA if kind in _KEYS else _OF_ALL) and (complaint := _METADATA[key](value)):
            raise InvalidEvidence(f"metadata[{key!r}] of {kind} evidence {complaint}, it is {_shown(value)}")
    if kind == "COMMAND_EXIT" and metadata.get("rerun") and "command" not in metadata:
        raise InvalidEvidence("evidence that asks to rerun names no command", hint='add metadata["command"]')


Complaint = Callable[[Any], str | None]


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a string that is not empty"


def _exit_code(value: Any) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) else "must be an integer"


def _size(value: Any) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if fits else "must be a number of bytes, 0 or more"


def _artifact_type(value: Any) -> str | None:
    return None if value in _ARTIFACT_TYPES else "must be 'file' or 'directory'"


def _columns(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be an object of column and value"
    return f"must name at most {MAX_COLUMNS} columns" if len(value) > MAX_COLUMNS else None


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _seconds(value: Any) -> str | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86_400
    return None if fits else "must be a number of seconds above 0, at most 86400"


def _made_on(value: Any) -> str | None:
    fits = isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("host", "workspace"))
    return None if fits else "must be an object of host and workspace"


# A sha256 may be any text: what is no SHA-256 is a claim that does not hold, with its own reason.
_KEYS: dict[str, tuple[dict[str, Complaint], dict[str, Complaint]]] = {
    "COMMAND_EXIT": ({"exit_code": _exit_code}, {}),
    "ARTIFACT_EXISTS": ({"path": _text}, {"type": _artifact_type, "min_size": _size}),
    "FILE_SHA256": ({"path": _text, "sha256": _text}, {}),
    "DB_ROW": ({"table": _text, "where": _columns}, {"values": _columns}),
}
_METADATA: dict[str, Complaint] = {
    "command": _text,
    "rerun": _flag,
    "timeout_s": _seconds,
    "db_path": _text,
    "made_on": _made_on,
}
_OF_ALL = ("made_on",)
"""Those that mean something for types of the app's own, too."""


def is_sha256(text: str) -> bool:
    """Whether `text` is 64 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def _listed(keys: dict[str, Complaint]) -> str:
    return ", ".join(repr(key) for key in keys)


def _known(keys: dict[str, Complaint]) -> str:
    return f"the keys that are checked are {_listed(keys)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
