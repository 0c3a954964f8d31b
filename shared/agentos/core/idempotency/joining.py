"""Whose call is it: the running handler's, under its fence, or this process's own, as a guest of the database."""

from agentos.core.lease import Lease, lease_for
from agentos.core.presence import guest
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput

LONGEST_S = 100 * 366 * 86_400.0


def caller(db: Database, task_id: str) -> tuple[Lease | None, int]:
    """The lease that the running code holds on an item of the task, if any, and the worker id to call under."""
    lease = lease_for(task_id)
    return (lease, lease.fence.worker_id) if lease else (None, guest(db))


def check_seconds(name: str, seconds: object) -> float:
    """Raises InvalidInput: if `seconds` is no number above 0, or above 100 years."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_S:
        return float(seconds)
    raise InvalidInput(f"{name} is {seconds!r}, not a number of seconds above 0", hint="86400 is a day")
