"""The calls of the engine that no scenario passes, one transition each."""

from agentos.testing.crashtest.transition import Transition
from agentos.testing.crashtest.transitions import flows, leases, records, retention, submits, upkeep

TRANSITIONS: tuple[Transition, ...] = (
    *submits.TRANSITIONS,
    *leases.TRANSITIONS,
    *records.TRANSITIONS,
    *upkeep.TRANSITIONS,
    *flows.TRANSITIONS,
    *retention.TRANSITIONS,
)

__all__ = ["TRANSITIONS"]
