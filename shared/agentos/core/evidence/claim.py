"""One claim: its type, what is expected, and whether it is well-formed. Whether it is true is for `check` to say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from agentos.core.evidence.wellformed import check_expected, check_metadata
from agentos.store.canonical import canonical, loads
from agentos.store.errors import InvalidEvidence, InvalidValue, ValueTooLarge

CLAIM_LIMIT = 64 * 1024
"""Bytes of JSON that one evidence may have."""
custom_types: set[str] = set()
"""Names of the types that the app registered (`evidence.custom`)."""
_CUSTOM = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIELDS = ("evidence_type", "description", "expected", "metadata")


class EvidenceType(StrEnum):
    """What kind of claim it is. `EvidenceType("command_exit")` and the name in capitals both find the member."""

    COMMAND_EXIT = "command_exit"
    ARTIFACT_EXISTS = "artifact_exists"
    FILE_SHA256 = "file_sha256"
    DB_ROW = "db_row"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.__members__.get(value) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True, init=False)
class Evidence:
    """A claim about the outside world that can be checked again. `expected` depends on the type:

    COMMAND_EXIT     {"exit_code": int}; metadata "command" names the call (without it: the newest call of the task);
                     "rerun": True runs that command again, at most "timeout_s" seconds (default 30)
    ARTIFACT_EXISTS  {"path": str, "type": "file" | "directory" (default: either), "min_size": bytes of a file}
    FILE_SHA256      {"path": str, "sha256": 64 hexadecimal digits}
                     "path" of both: a path, or a URL that other hosts reach too (s3://bucket/key)
    DB_ROW           {"table": "name" or "schema.name", "where": {column: value}, "values": {column: value}}; at most
                     8 columns in each; metadata "db_path" names an SQLite file instead of the database of agentos
    a registered name  whatever its own check reads (`@app.evidence("name")`); `evidence_type` is that name

    `expected` and `metadata` are copied, as the JSON that will be stored.
    """

    evidence_type: EvidenceType | str
    description: str
    expected: dict[str, Any]
    metadata: dict[str, Any]

    def __init__(
        self,
        evidence_type: EvidenceType | str,
        description: str,
        expected: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises InvalidEvidence: if the claim is not well-formed."""
        self._take(_evidence_type(evidence_type), description, expected, metadata)

    def _take(
        self,
        kind: EvidenceType | str,
        description: str,
        expected: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
    ) -> None:
        if not isinstance(description, str):
            raise InvalidEvidence(f"description is of type {type(description).__name__}, not str")
        fields = {"description": description, "expected": expected, "metadata": metadata or {}}
        for name in ("expected", "metadata"):
            if not isinstance(fields[name], Mapping):
                raise InvalidEvidence(f"{name} is of type {type(fields[name]).__name__}, not dict")
        copied = _copied({name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()})
        check_metadata(_name(kind), copied["metadata"])
        if isinstance(kind, EvidenceType):
            check_expected(kind.name, copied["expected"])
        object.__setattr__(self, "evidence_type", kind)
        for name, value in copied.items():
            object.__setattr__(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """The evidence as plain data; `from_json` is the way back."""
        return {
            "evidence_type": str(self.evidence_type),
            "description": self.description,
            "expected": self.expected,
            "metadata": self.metadata,
        }

    @classmethod
    def from_json(cls, data: object, *, stored: bool = False) -> Self:
        """The evidence that `as_json` gave; `description` and `metadata` may be left out. `stored`: it was committed,
        maybe by another program: a type that is not registered here makes a claim all the same, which does not hold.

        Raises InvalidEvidence: if it is no well-formed evidence.
        """
        if not isinstance(data, Mapping):
            raise InvalidEvidence(f"evidence is of type {type(data).__name__}, not an object with {', '.join(_FIELDS)}")
        if unknown := [key for key in data if key not in _FIELDS]:
            raise InvalidEvidence(f"evidence has no field {unknown[0]!r}", hint=f"its fields are {', '.join(_FIELDS)}")
        if missing := [key for key in ("evidence_type", "expected") if key not in data]:
            raise InvalidEvidence(f"evidence has no {missing[0]}", hint=f"its fields are {', '.join(_FIELDS)}")
        kind, fields = data["evidence_type"], (data.get("description", ""), data["expected"], data.get("metadata", {}))
        if (
            not stored
            or not isinstance(kind, str)
            or not _CUSTOM.fullmatch(kind)
            or kind.upper() in EvidenceType.__members__
        ):
            return cls(kind, *fields)
        made = cls.__new__(cls)
        made._take(kind, *fields)
        return made


def _name(kind: EvidenceType | str) -> str:
    return kind.name if isinstance(kind, EvidenceType) else kind


def _evidence_type(value: object) -> EvidenceType | str:
    if isinstance(value, str) and value in custom_types:
        return value
    try:
        return EvidenceType(value)  # type: ignore[arg-type]  # of any type: the enum refuses what is none of its values
    except ValueError:
        known = ", ".join((*EvidenceType.__members__, *sorted(custom_types)))
        raise InvalidEvidence(
            f"{value!r} is no evidence type", hint=f"use one of {known}, or register yours: @app.evidence(...)"
        ) from None


def _copied(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        copied: dict[str, Any] = loads(canonical(fields, limit=CLAIM_LIMIT, what="evidence"))
    except (InvalidValue, ValueTooLarge) as error:
        raise InvalidEvidence(error.message, hint=error.hint) from None
    return copied
