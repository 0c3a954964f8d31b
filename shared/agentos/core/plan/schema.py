"""The JSON Schema of a plan: what a plan file may say, and what a model is asked for and held to.

The schema says which fields there are and what each looks like. What it cannot say is checked beside it: keys are
unique, dependencies exist and have no cycle, evidence is well-formed for its type.
"""

from typing import Any

MAX_ITEMS = 10_000
MAX_ATTEMPTS = 1000
MAX_TIMEOUT_S = 30 * 86_400
MAX_TITLE = 500
KEY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}$"
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.:-]{0,99}$"
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"

_TEXT = {"type": "string", "pattern": r"\S"}

_EVIDENCE_TYPES = ("COMMAND_EXIT", "ARTIFACT_EXISTS", "FILE_SHA256", "DB_ROW")
_EVIDENCE: dict[str, Any] = {
    "type": "object",
    "description": "A claim about the outside world that must hold when the item is done, and is checked again later.",
    "additionalProperties": False,
    "required": ["type", "expected"],
    "properties": {
        "type": {
            "enum": [*_EVIDENCE_TYPES, *(name.lower() for name in _EVIDENCE_TYPES)],
        },
        "description": {"type": "string"},
        "expected": {
            "type": "object",
            "description": 'COMMAND_EXIT {"exit_code": 0}; ARTIFACT_EXISTS {"path": "out.txt", "type": "file"}; '
            'FILE_SHA256 {"path": "out.txt", "sha256": "<64 hex digits>"}; '
            'DB_ROW {"table": "t", "where": {"id": 1}, "values": {"status": "done"}}',
        },
        "metadata": {"type": "object"},
    },
}

_ITEM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key"],
    "oneOf": [{"required": ["command"]}, {"required": ["prompt"]}, {"required": ["kind"]}],
    "dependentRequired": {
        "cwd": ["command"],
        "env": ["command"],
        "model": ["prompt"],
        "system": ["prompt"],
        "payload": ["kind"],
    },
    "not": {"required": ["retries", "max_attempts"]},
    "properties": {
        "key": {"type": "string", "pattern": KEY_PATTERN, "description": "The item's name within the plan."},
        "command": {
            "description": "A shell command, or a program and its arguments: an item of kind shell.",
            "anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"type": "string"}}],
        },
        "cwd": _TEXT | {"description": "The directory that the command runs in."},
        "env": {
            "type": "object",
            "description": "Variables added to the command's environment.",
            "propertyNames": {"pattern": VARIABLE_PATTERN},
            "additionalProperties": {"type": "string"},
        },
        "prompt": _TEXT | {"description": "A prompt for a model: an item of kind llm."},
        "model": _TEXT | {"description": "The model to ask; default: the configured one."},
        "system": _TEXT | {"description": "What the model is told before the prompt."},
        "kind": {"type": "string", "pattern": NAME_PATTERN, "description": "A task kind of the worker's --app."},
        "payload": {"type": "object", "description": "The arguments of that kind."},
        "depends_on": {
            "description": "Keys of the items that must be completed first.",
            "anyOf": [{"type": "string"}, {"type": "array", "uniqueItems": True, "items": {"type": "string"}}],
        },
        "evidence": {"type": "array", "items": _EVIDENCE},
        "retries": {"type": "integer", "minimum": 0, "maximum": MAX_ATTEMPTS - 1},
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": 5},
        "timeout": {
            "description": 'Seconds, or a duration such as "90s", "5m", "1h30m".',
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
                {"type": "string", "pattern": DURATION_PATTERN},
            ],
        },
        "queue": {"type": "string", "pattern": NAME_PATTERN},
    },
}

PLAN_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "agentos plan",
    "type": "object",
    "additionalProperties": False,
    "required": ["items"],
    "properties": {
        "title": _TEXT | {"maxLength": MAX_TITLE},
        "queue": {"type": "string", "pattern": NAME_PATTERN, "description": "The queue of items that name none."},
        "items": {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": _ITEM},
    },
}

PLAN_FIELDS: list[str] = list(PLAN_SCHEMA["properties"])
ITEM_FIELDS: list[str] = list(_ITEM["properties"])
EVIDENCE_FIELDS: list[str] = list(_EVIDENCE["properties"])
ITEM_NEEDS: dict[str, str] = {field: needed[0] for field, needed in _ITEM["dependentRequired"].items()}
