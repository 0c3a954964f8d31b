"""Several claims and how many of them must hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from agentos.core.evidence.claim import Evidence
from agentos.store.errors import InvalidEvidence

_FIELDS = ("evidence_list", "require_all", "allow_partial", "min_verified")


@dataclass(frozen=True, slots=True, init=False)
class EvidencePack:
    """The evidence of one checkpoint. An empty pack claims nothing and holds.

    By default all must hold (`require_all`). With `allow_partial=True`, `min_verified=n` or `require_all=False` at
    least `min_verified` (default 1) must hold; the three attributes then say so, whichever of them was given.
    """

    evidence_list: list[Evidence]
    require_all: bool
    allow_partial: bool
    min_verified: int | None
    """How many must hold; None when all must."""

    def __init__(
        self,
        evidence_list: Sequence[Evidence],
        require_all: bool | None = None,
        allow_partial: bool = False,
        min_verified: int | None = None,
    ) -> None:
        """Raises InvalidEvidence: if the settings contradict each other, or could never or always hold."""
        _check_types(evidence_list, require_all, allow_partial, min_verified)
        partial = allow_partial or min_verified is not None or require_all is False
        if require_all and partial:
            given = "allow_partial=True" if allow_partial else f"min_verified={min_verified}"
            raise InvalidEvidence(
                f"require_all=True contradicts {given}", hint="leave out require_all, or ask for all of them"
            )
        _check_minimum(min_verified, len(evidence_list))
        object.__setattr__(self, "evidence_list", list(evidence_list))
        object.__setattr__(self, "require_all", not partial)
        object.__setattr__(self, "allow_partial", partial)
        object.__setattr__(self, "min_verified", min_verified or (1 if partial and evidence_list else None))

    @property
    def needed(self) -> int:
        """How many must hold for the pack to hold."""
        if self.min_verified is None:
            return len(self.evidence_list)
        return min(self.min_verified, len(self.evidence_list))

    def as_json(self) -> dict[str, Any]:
        """The pack as plain data; `from_json` is the way back."""
        return {
            "evidence_list": [evidence.as_json() for evidence in self.evidence_list],
            "require_all": self.require_all,
            "allow_partial": self.allow_partial,
            "min_verified": self.min_verified,
        }

    @classmethod
    def from_json(cls, data: object, *, stored: bool = False) -> Self:
        """The pack that `as_json` gave; all but `evidence_list` may be left out. `stored`: as in `Evidence.from_json`.

        Raises InvalidEvidence: if it is no well-formed pack.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("evidence_list"), list):
            raise InvalidEvidence("an evidence pack is an object with a list 'evidence_list'")
        if unknown := [key for key in data if key not in _FIELDS]:
            raise InvalidEvidence(f"an evidence pack has no field {unknown[0]!r}", hint=f"it has {', '.join(_FIELDS)}")
        return cls(
            [Evidence.from_json(each, stored=stored) for each in data["evidence_list"]],
            require_all=data.get("require_all"),
            allow_partial=data.get("allow_partial", False),
            min_verified=data.get("min_verified"),
        )


def _check_types(evidence_list: object, require_all: object, allow_partial: object, min_verified: object) -> None:
    if not isinstance(evidence_list, list | tuple) or not all(isinstance(each, Evidence) for each in evidence_list):
        raise InvalidEvidence("evidence_list is not a list of Evidence", hint="EvidencePack([Evidence(...)])")
    if not isinstance(require_all, bool | None) or not isinstance(allow_partial, bool):
        raise InvalidEvidence("require_all and allow_partial are True or False")
    if not isinstance(min_verified, int | None) or isinstance(min_verified, bool):
        raise InvalidEvidence(f"min_verified is of type {type(min_verified).__name__}, not int")


def _check_minimum(min_verified: int | None, size: int) -> None:
    if min_verified is None:
        return
    if min_verified < 1:
        raise InvalidEvidence(f"min_verified={min_verified} would always hold", hint="ask for at least 1")
    if min_verified > size:
        raise InvalidEvidence(f"min_verified={min_verified} can never hold with {size} evidence", hint=f"1 to {size}")
