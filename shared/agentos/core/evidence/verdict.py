"""What a check found. A claim that is false, or that may not be checked, is a verdict with a reason, not an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.pack import EvidencePack


class Refuted(Exception):
    """Raised and caught inside `check`: the claim does not hold, or may not be checked. Its text is the reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one claim holds, and why. `checked_at` is this host's clock: for people, nothing is decided by it.
    `took_s`: seconds.
    """

    evidence: Evidence
    holds: bool
    reason: str
    checked_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    took_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain data, for events and `--json`."""
        return {
            "evidence": self.evidence.as_json(),
            "holds": self.holds,
            "reason": self.reason,
            "checked_at": self.checked_at.isoformat(),
            "took_s": round(self.took_s, 6),
        }


@dataclass(frozen=True, slots=True)
class PackVerdict:
    """Whether a pack holds, why, and the verdict on each claim in its order."""

    holds: bool
    verdicts: list[Verdict]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain data, for events and `--json`."""
        return {
            "holds": self.holds,
            "reason": self.reason,
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
        }


def judge(pack: EvidencePack, verdicts: Sequence[Verdict]) -> PackVerdict:
    """What the verdicts on the claims of `pack`, in its order, mean for the pack."""
    if not verdicts:
        return PackVerdict(True, [], "no evidence to check")
    held = sum(verdict.holds for verdict in verdicts)
    count = f"{held} of {len(verdicts)} hold"
    if pack.min_verified is not None:
        count += f", {pack.needed} needed"
    if held >= pack.needed:
        return PackVerdict(True, list(verdicts), count)
    failures = "; ".join(_named(verdict) for verdict in verdicts if not verdict.holds)
    return PackVerdict(False, list(verdicts), f"{count}: {failures}")


def _named(verdict: Verdict) -> str:
    name = verdict.evidence.description or str(verdict.evidence.evidence_type)
    return f"{name}: {verdict.reason}"
