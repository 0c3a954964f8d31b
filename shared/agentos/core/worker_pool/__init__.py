"""Leases on work items, by hand: the protocol that `agentos-worker` follows, for programs that bring their own loop.

What a lease is
    The right to run one work item, alone, until a moment. It is a row in the database; `acquire_lease` takes it with a
    fresh random token, and worker id, item and token together are the *fence* that proves it.
Whose clock counts
    The database's, only. A lease ends by its own `lease_duration_seconds`, whatever this process believes. Renew it
    well before (after half of it), and take what is left from `expires_at` minus the database's time, or less.
What the fence protects
    Every write in the name of the item (checkpoint, ledger, cache, completion) proves the fence in its own transaction.
    A holder that was away too long is refused: `LeaseLost`, nothing written. Effects outside the database are not
    fenced: pass the ledger's idempotency key to whoever can refuse the second of two equal calls.
What a worker must stop doing
    After `LeaseLost`, or when it could not renew before `expires_at`: start no side effect, write nothing, drop the
    item. Another worker resumes it from its last verified checkpoint; what was done since then is in the ledger.

```
             acquire_lease            release_lease(success=True)
   ready ───────────────────▶ held ─────────────────────────────▶ completed
     ▲                        │ │ │
     │        hand_back       │ │ │  release_lease(success=False)
     ├────────────────────────┘ │ └──────────┬──────────────────▶ failed  (max_attempts reached)
     │   expired: a crash is    │            ▼
     ├──────────────────────────┘        scheduled
     │   charged; 3: quarantined             │
     └───────────────────────────────────────┘ when it is due
```
"""

from agentos.core.worker_pool.lease_manager import LeaseManager
from agentos.core.worker_pool.work_item_lease import WorkItemLease

__all__ = ["LeaseManager", "WorkItemLease"]
