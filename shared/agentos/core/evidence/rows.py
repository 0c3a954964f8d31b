"""What DB_ROW asks of any database, and how the answer reads. Reasons repeat the claim, never what the table holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.verdict import Refuted
from agentos.store.canonical import canonical_text

TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class RowClaim:
    """There is a row in `table` that `where` finds and that has `values`."""

    table: str
    where: dict[str, Any]
    values: dict[str, Any]

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """The claim of DB_ROW evidence. Raises Refuted: if its `where` is empty."""
        expected = evidence.expected
        if not expected["where"]:
            raise Refuted("where is empty, so the claim would be about any row at all")
        return cls(expected["table"], expected["where"], expected.get("values", {}))

    def answer(self, matches: Sequence[object] | None) -> str:
        """Why the claim holds: `matches` says of each of `values` whether the best row has it, None if there is no row.

        Raises Refuted: if it does not hold.
        """
        place = f"{self.table} where {_listed(self.where)}"
        if matches is None:
            raise Refuted(f"there is no row in {place}")
        if wrong := [name for name, right in zip(self.values, matches, strict=True) if not right]:
            raise Refuted(f"the row in {place} has not {_listed({name: self.values[name] for name in wrong})}")
        return f"there is a row in {place}" + (f" with {_listed(self.values)}" if self.values else "")


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {shown(value)}" for name, value in values.items())


def shown(value: object) -> str:
    """`value` as JSON, at most 60 characters of it."""
    text = canonical_text(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
