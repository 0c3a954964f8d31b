"""What `acquire_lease` hands out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentos.store.calls.items import Fence


@dataclass(frozen=True, slots=True)
class WorkItemLease:
    """A work item that is held, until `expires_at` by the database's clock.

    `attempt` counts claims of the item, `failures` those that were released without success, `crashes` leases that ran
    out. `fence` is the proof of the lease.
    """

    work_item_id: int
    task_id: str
    kind: str
    key: str | None
    queue: str
    payload: Any
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    timeout_s: float | None
    acquired_at: datetime
    expires_at: datetime
    fence: Fence
