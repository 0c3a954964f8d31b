"""Committing a checkpoint although the reply may be lost, and finding the newest one that still holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, repeat

from agentos.core.evidence import PackVerdict
from agentos.core.flows.parts import joined
from agentos.core.flows.patience import insist
from agentos.core.lease import Lease
from agentos.store.calls.checkpoints import (
    CheckpointRow,
    Committed,
    NewCheckpoint,
    checkpoints_before,
    commit_checkpoint,
    commit_parted,
)
from agentos.store.errors import PartsMissing
from agentos.store.parts import part
from agentos.store.run import Flow, do, invoke

PAGES = (1, 4, 20)
"""Checkpoints read at a time while walking back; the last for all that follow. Nearly always the newest holds, and a
page of snapshots of 8 MiB is a lot to read for nothing."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The checkpoint to go on from (None: from the beginning), and the newer ones that do not hold, with reasons."""

    row: CheckpointRow | None
    rejected: tuple[tuple[int, str], ...]


def commit(
    new: NewCheckpoint, lease: Lease | None, worker_id: int | None, stored: set[str] | None = None
) -> Flow[Committed]:
    """Commit under the lease's fence, or without a lease under the task's head.

    Of a large snapshot only the parts that are not in `stored` are sent; afterwards it names those that are.

    Raises LeaseLost, TaskCancelled: with a lease. TaskHeld, UnknownTask, UnknownWorkItem: without one.
    Raises DatabaseUnavailable: if it did not answer for about 3 s; the checkpoint may or may not be there.
    """
    if lease is not None and new.item_id != lease.fence.item_id:
        new = new._replace(item_id=lease.fence.item_id)
    fence = lease.fence if lease else None
    # A step is stored once, however often it is committed: its step_id tells.
    if (large := part(new.snapshot)) is None:
        return (yield from insist(commit_checkpoint(new, fence, worker_id)))
    new, stored, names = new._replace(snapshot=large.text), set() if stored is None else stored, sorted(large.parts)
    fresh = {name: large.parts[name] for name in names if name not in stored}
    try:
        committed = yield from insist(commit_parted(new, fence, worker_id, names, fresh))
    except PartsMissing:  # what the caller took for stored was rolled back
        committed = yield from insist(commit_parted(new, fence, worker_id, names, large.parts))
    stored.clear()
    stored.update(names)
    return committed


def whole(row: CheckpointRow) -> Flow[CheckpointRow]:
    """The row with its snapshot as it was committed. One whose parts are gone stays as it is, and does not hold."""
    text = yield from joined(row.snapshot_text)
    return row if text is None or text is row.snapshot_text else replace(row, snapshot_text=text)


def newest_holding(
    task_id: str, item_id: int | None, verify: Callable[[CheckpointRow], PackVerdict], *, placed: bool = True
) -> Flow[Resume]:
    """Walk back from the newest checkpoint of the item (None: of the whole task) to one that `verify` says holds.

    `placed`: of an item only those that have a place in its program, as its handler's own checkpoints do. One that
    `CheckpointManager` committed inside a handler has none: the calls made after it could not be found again.
    """
    rejected: list[tuple[int, str]] = []
    before: int | None = None
    for page in chain(PAGES, repeat(PAGES[-1])):
        rows = yield from do(checkpoints_before(task_id, item_id=item_id, before=before, limit=page))
        for row in rows:
            before = row.sequence_number
            if placed and item_id is not None and row.ordinal is None:
                continue
            full = yield from whole(row)
            verdict: PackVerdict = yield from invoke(verify, full)
            if verdict.holds:
                return Resume(full, tuple(rejected))
            rejected.append((row.sequence_number, verdict.reason))
        if len(rows) < page:
            break
    return Resume(None, tuple(rejected))
