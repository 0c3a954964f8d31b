"""What a checkpoint costs to commit and to verify, beside a bare INSERT commit of the same run."""

import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from agentos.core.checkpoints import CheckpointManager, Evidence, EvidencePack, EvidenceType
from agentos.core.task import TaskManager
from agentos.store import get_db
from bench.measure import Figure, timed

BASELINE = "bare INSERT, committed"
COMMIT_BAR_MS = 10.0
VERIFY_BAR_MS = 50.0


def run(times: int = 300) -> Iterator[Figure]:
    """The figures of this file."""
    with get_db() as conn:
        conn.execute(
            "CREATE TABLE IF NOT EXISTS public.agentos_bench (id bigint GENERATED ALWAYS AS IDENTITY, body text)"
        )
        body = "x" * 200
        yield timed(
            BASELINE, lambda: conn.execute("INSERT INTO public.agentos_bench (body) VALUES (%s)", (body,)), times=times
        )
        conn.execute("DROP TABLE public.agentos_bench")
    yield from _commits(times)
    yield from _verifications(times)


def _commits(times: int) -> Iterator[Figure]:
    task = TaskManager().create_task(title="bench", task_id=f"bench-{uuid4().hex}")
    manager = CheckpointManager()
    for size in (1024, 64 * 1024):

        def commit(snapshot: dict[str, str] = {"state": "x" * size}) -> object:  # noqa: B006  never changed
            step = manager.begin_step(task.task_id, "iteration_end", snapshot)
            return manager.commit_step(step, EvidencePack(evidence_list=[]))

        name = f"checkpoint, {size // 1024} KiB: begin_step + commit_step"
        yield timed(name, commit, times=times, baseline=BASELINE, bar_ms=COMMIT_BAR_MS)


def _verifications(times: int) -> Iterator[Figure]:
    task = TaskManager().create_task(title="bench", task_id=f"bench-{uuid4().hex}")
    manager = CheckpointManager()
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "artifact.json"
        artifact.write_bytes(b"x" * 64 * 1024)
        evidence = [
            Evidence(EvidenceType.ARTIFACT_EXISTS, "it is there", {"path": str(artifact), "type": "file"}),
            Evidence(
                EvidenceType.FILE_SHA256, "it is whole",
                {"path": str(artifact), "sha256": sha256(artifact.read_bytes()).hexdigest()},
            ),
            Evidence(
                EvidenceType.DB_ROW, "the task is there",
                {"table": "tasks", "where": {"task_id": task.task_id}, "values": {"status": "created"}},
            ),
        ]  # fmt: skip
        step = manager.begin_step(task.task_id, "iteration_end", {"n": 1})
        checkpoint = manager.commit_step(step, EvidencePack(evidence_list=evidence))
        if not manager.verify_checkpoint(checkpoint.checkpoint_id):
            raise SystemExit("the benchmark's checkpoint does not verify; no figure would mean anything")
        name = "verify_checkpoint: a file, its hash, a row"
        yield timed(
            name, lambda: manager.verify_checkpoint(checkpoint.checkpoint_id), times=times, baseline=BASELINE,
            bar_ms=VERIFY_BAR_MS,
        )  # fmt: skip
