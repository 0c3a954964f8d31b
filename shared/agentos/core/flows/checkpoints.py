"""Committing a checkpoint although the reply may be lost, and finding the newest one that still holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agentos.core.evidence import PackVerdict
from agentos.core.flows.patience import OUTAGE_WAITS_S
from agentos.core.lease import Lease
from agentos.store.calls.checkpoints import (
    CheckpointRow,
    Committed,
    NewCheckpoint,
    checkpoints_before,
    commit_checkpoint,
    committed_step,
)
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Flow, Sleep, do, invoke

PAGE = 20
"""Checkpoints read at a time while walking back."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The checkpoint to go on from (None: from the beginning), and the newer ones that do not hold, with reasons."""

    row: CheckpointRow | None
    rejected: tuple[tuple[int, str], ...]


def commit(new: NewCheckpoint, lease: Lease | None, worker_id: int | None) -> Flow[Committed]:
    """Commit under the lease's fence, or without a lease under the task's head.

    Raises LeaseLost, TaskCancelled: with a lease. TaskHeld, UnknownTask, UnknownWorkItem: without one.
    Raises DatabaseUnavailable: if it did not answer for about 3 s; the checkpoint may or may not be there.
    """
    if lease is not None:
        new = replace(new, item_id=lease.fence.item_id)
    write = commit_checkpoint(new, lease.fence if lease else None, worker_id)
    for wait_s in OUTAGE_WAITS_S:
        try:
            return (yield from do(write))
        except DatabaseUnavailable:
            yield Sleep(wait_s)
        if there := (yield from _there(new)):
            return there
    return (yield from do(write))


def _there(new: NewCheckpoint) -> Flow[Committed | None]:
    try:
        return (yield from do(committed_step(new.task_id, new.step_id)))
    except DatabaseUnavailable:
        return None


def newest_holding(
    task_id: str, item_id: int | None, verify: Callable[[CheckpointRow], PackVerdict], *, placed: bool = True
) -> Flow[Resume]:
    """Walk back from the newest checkpoint of the item (None: of the whole task) to one that `verify` says holds.

    `placed`: of an item only those that have a place in its program, as its handler's own checkpoints do. One that
    `CheckpointManager` committed inside a handler has none: the calls made after it could not be found again.
    """
    rejected: list[tuple[int, str]] = []
    before: int | None = None
    while True:
        rows = yield from do(checkpoints_before(task_id, item_id=item_id, before=before, limit=PAGE))
        for row in rows:
            before = row.sequence_number
            if placed and item_id is not None and row.ordinal is None:
                continue
            verdict: PackVerdict = yield from invoke(verify, row)
            if verdict.holds:
                return Resume(row, tuple(rejected))
            rejected.append((row.sequence_number, verdict.reason))
        if len(rows) < PAGE:
            return Resume(None, tuple(rejected))
