"""Killing a worker at a moment that is chosen, not hoped for.

A worker is frozen first. Only if it then still holds an item whose newest checkpoint vouches for an artifact, and whose
next step is a model's answer, is the artifact changed and the worker killed: nothing it had under way can complete that
item, so its checkpoint must be rejected and its artifact repaired. Otherwise the worker is thawed and goes on.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentos.demo import artifacts
from agentos.demo.processes import Process
from agentos.demo.watch import Look, Watch
from agentos.store.calls.timeline import CheckpointSummary

ASKED = "llm_response"
"""The checkpoint after the first of an item's two answers: an answer is paid, the artifact written, one step to go."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What was done. `killed_at`: the database's clock; `at`: this host's. `held`: item ids and their newest
    checkpoint, None where there was none.
    """

    worker: str
    pid: int
    worker_id: int
    killed_at: datetime
    at: float
    held: dict[int, int | None]
    victim: int
    victim_name: str
    sequence_number: int
    artifact: Path


def strike(watch: Watch, workers: Sequence[Process], *, quiet: bool) -> Strike | None:
    """Kill one of them, if one holds such an item now. `quiet`: and asks no model: an answer that the kill cuts off is
    paid for and recorded nowhere, by any system."""
    look = watch.look()
    newest = _newest(watch.checkpoints())
    for worker in workers:
        if not worker.ended() and _vulnerable(look, newest, worker.pid) and (done := _strike(watch, worker, quiet)):
            return done
    return None


def _strike(watch: Watch, worker: Process, quiet: bool) -> Strike | None:
    worker.freeze()
    try:
        look, newest = watch.look(), _newest(watch.checkpoints())
        found = _vulnerable(look, newest, worker.pid)
        if found is None or (quiet and watch.is_asking({item.item_id for item in look.held_by(found[0])})):
            return None
        worker_id, item_id, checkpoint = found
        held = {item.item_id: _sequence(newest.get(item.item_id)) for item in look.held_by(worker_id)}
        artifact = _artifact(checkpoint)
        artifacts.corrupt(artifact)
        at, killed_at = time.time(), watch.now()
        worker.kill()
        return Strike(
            worker.name, worker.pid, worker_id, killed_at, at, held, item_id, look.name_of(item_id),
            checkpoint.sequence_number, artifact,
        )  # fmt: skip
    finally:
        worker.thaw()


def _vulnerable(
    look: Look, newest: dict[int, CheckpointSummary], pid: int
) -> tuple[int, int, CheckpointSummary] | None:
    """(worker, item, checkpoint) of an item that a living worker row of this process holds."""
    for row in look.workers:
        if row.pid != pid or row.state != "alive" or row.role != "worker":
            continue
        for item in look.held_by(row.worker_id):
            checkpoint = newest.get(item.item_id)
            if checkpoint and checkpoint.checkpoint_type == ASKED and checkpoint.worker_id == row.worker_id:
                return row.worker_id, item.item_id, checkpoint
    return None


def _newest(checkpoints: Sequence[CheckpointSummary]) -> dict[int, CheckpointSummary]:
    return {each.item_id: each for each in checkpoints if each.item_id is not None and each.superseded_at is None}


def _sequence(checkpoint: CheckpointSummary | None) -> int | None:
    return None if checkpoint is None else checkpoint.sequence_number


def _artifact(checkpoint: CheckpointSummary) -> Path:
    claims = checkpoint.evidence["evidence_list"]
    return Path(next(claim["expected"]["path"] for claim in claims if claim["evidence_type"] == "file_sha256"))
