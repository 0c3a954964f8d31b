"""Do a checkpoint's claims hold, here and now? What resume, `verify_checkpoint` and replay ask.

Every check of evidence is kept: an event `evidence_checked` of the task, appended when the verdict is known and before
anybody acts on it. Dies the process before that commit, nothing was decided, and whoever resumes next checks again;
after it, the log has a check more. A log decides nothing, so it needs no fence: a zombie's check is one that was made.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.core.evidence import Evidence, EvidencePack, PackVerdict, Verdict, check_pack
from agentos.core.evidence.world import LocalWorld
from agentos.core.lease import lease_for
from agentos.core.process import host
from agentos.store.calls import checkpoints
from agentos.store.calls.checkpoints import CheckpointRow, RecordedExit
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import InvalidEvidence

KEPT = 100
"""Claims of one check whose verdicts are kept."""
REASON = 1000
"""Characters of a reason, or of a description, that are kept."""


@dataclass(slots=True)
class Verifier:
    """Checks evidence of one task against this host, its files and the database. Blocking. `logged`: whether the
    verdicts are kept; not those of somebody who only looks.
    """

    db: Database
    task_id: str
    may_rerun: bool
    logged: bool = True

    def row(self, row: CheckpointRow) -> PackVerdict:
        """A stored checkpoint: its snapshot is what was hashed, and its evidence holds."""
        verdict = self._of(row)
        self._keep({"sequence_number": row.sequence_number, "item_id": row.item_id}, verdict)
        return verdict

    def evidence(self, evidence: Sequence[Evidence], whose: str) -> PackVerdict:
        """Claims on their own: what a recorded tool call (`whose`) produced."""
        verdict = check_pack(EvidencePack(list(evidence)), self._world(None))
        self._keep({"call": whose}, verdict)
        return verdict

    def _of(self, row: CheckpointRow) -> PackVerdict:
        if hashlib.sha256(row.snapshot_text.encode()).hexdigest() != row.snapshot_sha256:
            return PackVerdict(holds=False, verdicts=[], reason="the stored snapshot is not what was committed")
        try:
            pack = EvidencePack.from_json(row.evidence, stored=True)
        except InvalidEvidence as error:
            return PackVerdict(holds=False, verdicts=[], reason=f"its evidence cannot be read: {error.message}")
        return check_pack(pack, self._world(row.created_at))

    def _keep(self, of: dict[str, Any], verdict: PackVerdict) -> None:
        """Nothing was claimed, nothing was found wrong: that is no news."""
        if not self.logged or (verdict.holds and not verdict.verdicts):
            return
        lease = lease_for(self.task_id)
        self.db.run(
            checkpoints.keep_verdict(
                self.task_id, lease.fence.item_id if lease else of.get("item_id"),
                lease.fence.worker_id if lease else None, lease.attempt if lease else None,
                canonical_text(_kept(of, verdict)),
            )
        )  # fmt: skip

    def _world(self, before: datetime | None) -> LocalWorld:
        def recorded(command: str | None) -> RecordedExit | None:
            # A command that is named counts as it was executed last, a repair after the commit too.
            until = before if command is None else None
            return self.db.run(checkpoints.recorded_exit(self.task_id, command, until))

        return LocalWorld(recorded_exit_code=recorded, connect=self.db.connection, may_rerun=self.may_rerun)


def verifier(db: Database, task_id: str, *, may_rerun: bool, logged: bool = True) -> Verifier:
    """The checks for one task. `may_rerun`: whether evidence may run its command again on this host."""
    return Verifier(db, task_id, may_rerun, logged)


def _kept(of: dict[str, Any], verdict: PackVerdict) -> dict[str, Any]:
    """The claims that do not hold first; of a pack with more than `KEPT` the rest is a number."""
    claims = sorted(enumerate(verdict.verdicts), key=lambda each: each[1].holds)
    return {
        **of, "host": host(), "holds": verdict.holds, "reason": verdict.reason[:REASON],
        "claims": [_claim(at, each) for at, each in claims[:KEPT]], "more": max(len(claims) - KEPT, 0),
    }  # fmt: skip


def _claim(at: int, verdict: Verdict) -> dict[str, Any]:
    evidence = verdict.evidence
    return {
        "place": at, "evidence_type": str(evidence.evidence_type), "description": evidence.description[:REASON],
        "holds": verdict.holds, "reason": verdict.reason[:REASON], "took_s": round(verdict.took_s, 6),
    }  # fmt: skip
