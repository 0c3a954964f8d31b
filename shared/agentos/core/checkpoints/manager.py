"""`CheckpointManager`: begin a step, commit it with evidence, find the newest checkpoint that still holds."""

import os
import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from agentos.core.artifacts import ArtifactStore
from agentos.core.checkpoints.checkpoint import Checkpoint, checkpoint_id, parse_checkpoint_id
from agentos.core.evidence import Evidence, EvidencePack, PackVerdict, stamp_pack
from agentos.core.flows.checkpoints import commit, newest_holding, whole
from agentos.core.lease import Lease, lease_for
from agentos.core.process import host
from agentos.core.scope import SNAPSHOT_LIMIT, check_checkpoint_type
from agentos.core.transaction import blocking_runner
from agentos.core.verification import Verifier, verifier
from agentos.store.calls.checkpoints import (
    CheckpointRow,
    NewCheckpoint,
    checkpoint_of,
    require_item,
)
from agentos.store.canonical import canonical, canonical_text, loads
from agentos.store.connect import Database
from agentos.store.errors import CheckpointInvalid, UnknownCheckpoint, UnknownStep, UnknownWorkItem
from agentos.store.run import drive

BEGUN_STEPS = 1000
"""Steps that one manager keeps begun: a program that never commits what it begins must not grow for ever."""


class CheckpointManager:
    """Commits and reads checkpoints. Safe for threads.

    `db`: default, the database of AGENTOS_DSN, else the embedded one. `may_rerun`: whether evidence that asks for it
    may run its command again on this host; default no.

    In code that runs under a lease of the task (a handler, `LeaseManager`) a commit is fenced by that lease; in a
    script it is refused (`TaskHeld`) while a living worker holds an item of the task.
    """

    def __init__(self, db: Database | None = None, *, may_rerun: bool = False) -> None:
        self._db = db or Database.default()
        self._may_rerun = may_rerun
        self._steps: dict[str, NewCheckpoint] = {}
        self._lock = threading.Lock()

    def begin_step(
        self, task_id: str, checkpoint_type: str, snapshot: Any, work_item_id: int | str | None = None
    ) -> str:
        """Take down what will be committed; returns the step's id. Nothing is stored yet. Of more than 1000 steps begun
        and not committed the oldest are forgotten.

        `snapshot`: up to 8 MiB of JSON, copied. Raises InvalidCheckpointType: if it is not one of the eight.
        InvalidValue, ValueTooLarge: if JSON cannot hold the snapshot. UnknownTask. UnknownWorkItem: if the task has no
        such item.
        """
        check_checkpoint_type(checkpoint_type)
        body = canonical(snapshot, limit=SNAPSHOT_LIMIT, what="snapshot")
        item_id = _item_id(task_id, work_item_id)
        self._db.run(require_item(task_id, item_id))
        step_id = uuid4()
        new = NewCheckpoint(
            task_id=task_id,
            item_id=item_id,
            checkpoint_type=checkpoint_type,
            snapshot=body.decode(),
            snapshot_sha256=sha256(body).hexdigest(),
            evidence="",
            ordinal=None,
            host=host(),
            workspace=os.fsencode(os.getcwd()).decode(errors="replace"),
            step_id=step_id,
        )
        with self._lock:
            self._steps[str(step_id)] = new
            while len(self._steps) > BEGUN_STEPS:
                del self._steps[next(iter(self._steps))]  # the oldest
        return str(step_id)

    def commit_step(self, step_id: str, evidence_pack: EvidencePack | Sequence[Evidence] = ()) -> Checkpoint:
        """Store the step, with its evidence as it is: whether that is true is for `verify_checkpoint` to say.

        Raises UnknownStep: if this manager did not begin the step, or committed it. TaskHeld: without a lease, while a
        worker holds an item of the task. LeaseLost, TaskCancelled: under a lease. DatabaseUnavailable: if the server
        did not answer for about 3 s; the step may then be committed again, and is stored once.
        """
        pack = evidence_pack if isinstance(evidence_pack, EvidencePack) else EvidencePack(list(evidence_pack))
        stamped = stamp_pack(pack)
        begun = self._take(step_id)
        try:
            new = begun._replace(evidence=canonical_text(stamped.as_json(), what="evidence"))
            lease = _lease_on(new)
            runner = blocking_runner(new.task_id, self._db)
            committed = drive(runner, commit(new, lease, lease.fence.worker_id if lease else None))
        except BaseException:
            with self._lock:
                self._steps[step_id] = begun
            raise
        return Checkpoint(
            checkpoint_id=checkpoint_id(new.task_id, committed.sequence_number),
            task_id=new.task_id,
            work_item_id=lease.fence.item_id if lease else new.item_id,
            sequence_number=committed.sequence_number,
            checkpoint_type=new.checkpoint_type,
            snapshot=loads(new.snapshot),
            evidence_pack=stamped,
            host=new.host,
            created_at=committed.created_at,
        )

    def _take(self, step_id: str) -> NewCheckpoint:
        with self._lock:
            begun = self._steps.pop(step_id, None)
        if begun is None:
            raise UnknownStep(
                f"the step {step_id!r} was not begun by this manager, is committed, or 1000 were begun after it",
                hint="call begin_step first, and commit each step once, with the manager that began it",
            )
        return begun

    def verify_checkpoint(self, checkpoint_id: str) -> bool:
        """Whether the stored snapshot is intact and its evidence holds now, on this host.

        Raises UnknownCheckpoint: if there is none of this id. DatabaseUnavailable: nothing was found out then.
        """
        return self.explain_checkpoint(checkpoint_id).holds

    def explain_checkpoint(self, checkpoint_id: str) -> PackVerdict:
        """`verify_checkpoint` with the reason, and the verdict on each piece of evidence. Raises the same."""
        row = self._row(checkpoint_id)
        return self._verifier(row.task_id).row(row)

    def get_last_verified_checkpoint(self, task_id: str, work_item_id: int | str | None = None) -> Checkpoint | None:
        """The newest checkpoint of the task (or of one item) that holds now; those that do not are walked past and
        left as they are. None: there is none. Raises UnknownTask, UnknownWorkItem, DatabaseUnavailable.
        """
        item_id = _item_id(task_id, work_item_id)
        self._db.run(require_item(task_id, item_id))
        row = drive(self._db, newest_holding(task_id, item_id, self._verifier(task_id).row, placed=False)).row
        return Checkpoint.from_row(row) if row else None

    def rollback_to_checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """The checkpoint, verified: go on from its snapshot. Later checkpoints stay in the record.

        Raises CheckpointInvalid: if it does not hold now. UnknownCheckpoint: if there is none of this id.
        """
        row = self._row(checkpoint_id)
        verdict = self._verifier(row.task_id).row(row)
        if not verdict.holds:
            raise CheckpointInvalid(
                f"checkpoint {checkpoint_id} does not hold: {verdict.reason}",
                hint=f"restore what its evidence names, or use get_last_verified_checkpoint({row.task_id!r})",
            )
        return Checkpoint.from_row(row)

    def artifact(self, path: str | Path, name: str | None = None) -> Evidence:
        """Store a file in AGENTOS_ARTIFACTS; evidence of it, for `commit_step`. Raises InvalidArtifact,
        ArtifactUnavailable.
        """
        return ArtifactStore().put(path, name)

    def fetch_artifact(self, artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Path:
        """Write an artifact to the file `to`: by its evidence, that as JSON, or its SHA-256. Raises InvalidArtifact,
        ArtifactUnavailable: if this host's store does not have it whole.
        """
        return ArtifactStore().get(artifact, to)

    def _row(self, wanted: str) -> CheckpointRow:
        task_id, number = parse_checkpoint_id(wanted)
        row = self._db.run(checkpoint_of(task_id, number))
        if row is None:
            raise UnknownCheckpoint(
                f"no checkpoint has the id {wanted!r}", hint="pass the checkpoint_id of a committed checkpoint"
            )
        return drive(self._db, whole(row))

    def _verifier(self, task_id: str) -> Verifier:
        return verifier(self._db, task_id, may_rerun=self._may_rerun)


def _lease_on(new: NewCheckpoint) -> Lease | None:
    """The running code's lease, if it is on this item, or on this task and no item was named."""
    lease = lease_for(new.task_id)
    if lease is None or new.item_id not in (None, lease.fence.item_id):
        return None
    return lease


def _item_id(task_id: str, work_item_id: int | str | None) -> int | None:
    text = str(work_item_id)
    if work_item_id is None or (isinstance(work_item_id, int) and abs(work_item_id) < 2**63):
        return work_item_id
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise UnknownWorkItem(
        f"task {task_id} has no work item {work_item_id!r}",
        hint=f'omit work_item_id and store it in the snapshot instead: snapshot={{"work_item_id": {text!r}}}',
    )
