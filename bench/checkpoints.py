"""What a checkpoint of the blocking API costs to commit and to verify, beside a bare INSERT commit of the same run."""

import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from agentos.core.checkpoints import CheckpointManager, Evidence, EvidencePack, EvidenceType
from agentos.core.task import TaskManager
from agentos.store import get_db
from bench.bed import Bed
from bench.measure import Figure, in_turns, milliseconds

ISSUE = "design"
COMMIT_MS, VERIFY_MS = 10.0, 50.0
TIMES = 40


def run(bed: Bed) -> Iterator[Figure]:
    """The figures of this file."""
    with get_db() as conn, tempfile.TemporaryDirectory() as folder:
        manager = CheckpointManager()
        task_id = TaskManager().create_task(title="bench").task_id
        checkpoint_id = _checkpoint(manager, task_id, Path(folder) / "artifact.json")
        insert = "INSERT INTO raw.bare (body) VALUES (%s)"
        bare, small, large, verified = in_turns(ISSUE, "ms", bed.rounds, {
            "bare INSERT, committed": lambda: milliseconds(lambda: conn.execute(insert, ("x" * 200,)), TIMES),
            "begin_step + commit_step, 1 KiB": lambda: milliseconds(_commit(manager, task_id, 1024), TIMES),
            "begin_step + commit_step, 64 KiB": lambda: milliseconds(_commit(manager, task_id, 64 * 1024), TIMES),
            "verify_checkpoint: a file, its hash, a row": lambda: milliseconds(
                lambda: manager.verify_checkpoint(checkpoint_id), TIMES),
        }).values()  # fmt: skip
    yield small.figure(bare).held_to("value", "≤", COMMIT_MS)
    yield large.figure(bare).held_to("value", "≤", COMMIT_MS)
    yield verified.figure(bare).held_to("value", "≤", VERIFY_MS)


def _commit(manager: CheckpointManager, task_id: str, size: int) -> Callable[[], object]:
    snapshot = {"state": "x" * size}
    return lambda: manager.commit_step(
        manager.begin_step(task_id, "iteration_end", snapshot), EvidencePack(evidence_list=[])
    )


def _checkpoint(manager: CheckpointManager, task_id: str, artifact: Path) -> str:
    """One with three claims that hold. Raises SystemExit: if they do not."""
    artifact.write_bytes(b"x" * 64 * 1024)
    evidence = [
        Evidence(EvidenceType.ARTIFACT_EXISTS, "it is there", {"path": str(artifact), "type": "file"}),
        Evidence(
            EvidenceType.FILE_SHA256, "it is whole",
            {"path": str(artifact), "sha256": sha256(artifact.read_bytes()).hexdigest()},
        ),
        Evidence(
            EvidenceType.DB_ROW, "the task is there",
            {"table": "tasks", "where": {"task_id": task_id}, "values": {"status": "created"}},
        ),
    ]  # fmt: skip
    step = manager.begin_step(task_id, "iteration_end", {"n": 1})
    checkpoint = manager.commit_step(step, EvidencePack(evidence_list=evidence))
    if not manager.verify_checkpoint(checkpoint.checkpoint_id):
        raise SystemExit("the benchmark's checkpoint does not verify; no figure would mean anything")
    return checkpoint.checkpoint_id
