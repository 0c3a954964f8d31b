"""The lease that the running code holds, if it runs under one.

A handler that calls `ToolLedger()` or `CheckpointManager()` writes under its own item's fence without having to pass
it: the managers find it here. The variable follows `asyncio` tasks and `asyncio.to_thread`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from agentos.store.calls.items import ClaimedItem, Fence


class Lease(NamedTuple):
    """A held item: the fence that proves it, its task, which claim of the item this is; and, for logs, what it is.

    A tuple, because each attempt has one: a frozen dataclass takes five times as long to make.
    """

    fence: Fence
    task_id: str
    attempt: int
    queue: str = ""
    kind: str = ""

    @staticmethod
    def of(item: ClaimedItem, worker_id: int) -> "Lease":
        """That of a claimed item."""
        return tuple.__new__(Lease, (item.fence(worker_id), item.task_id, item.attempt, item.queue, item.kind))


current_lease: ContextVar[Lease | None] = ContextVar("agentos_lease", default=None)


def lease_for(task_id: str) -> Lease | None:
    """The lease the running code holds on an item of `task_id`, else None."""
    lease = current_lease.get()
    return lease if lease is not None and lease.task_id == task_id else None


@contextmanager
def holding(lease: Lease) -> Iterator[Lease]:
    """Make `lease` the current one for the block."""
    token = current_lease.set(lease)
    try:
        yield lease
    finally:
        current_lease.reset(token)
