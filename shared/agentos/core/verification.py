"""Do a checkpoint's claims hold, here and now? What resume, `verify_checkpoint` and replay ask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentos.core.evidence import Evidence, EvidencePack, PackVerdict, check_pack
from agentos.core.evidence.world import LocalWorld
from agentos.store.calls import checkpoints
from agentos.store.calls.checkpoints import CheckpointRow, RecordedExit
from agentos.store.connect import Database


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks evidence of one task against this host, its files and the database. Blocking."""

    db: Database
    task_id: str
    may_rerun: bool

    def row(self, row: CheckpointRow) -> PackVerdict:
        """A stored checkpoint: its snapshot is what was hashed, and its evidence holds."""
        if hashlib.sha256(row.snapshot_text.encode()).hexdigest() != row.snapshot_sha256:
            return PackVerdict(holds=False, verdicts=[], reason="the stored snapshot is not what was committed")
        return check_pack(EvidencePack.from_json(row.evidence), self._world(row.created_at))

    def evidence(self, evidence: Sequence[Evidence]) -> PackVerdict:
        """Claims on their own: what a recorded tool call produced."""
        return check_pack(EvidencePack(list(evidence)), self._world(None))

    def _world(self, before: datetime | None) -> LocalWorld:
        def recorded(command: str | None) -> RecordedExit | None:
            # A command that is named counts as it was executed last, a repair after the commit too.
            until = before if command is None else None
            return self.db.run(checkpoints.recorded_exit(self.task_id, command, until))

        return LocalWorld(recorded_exit_code=recorded, connect=self.db.connection, may_rerun=self.may_rerun)


def verifier(db: Database, task_id: str, *, may_rerun: bool) -> Verifier:
    """The checks for one task. `may_rerun`: whether evidence may run its command again on this host."""
    return Verifier(db, task_id, may_rerun)
