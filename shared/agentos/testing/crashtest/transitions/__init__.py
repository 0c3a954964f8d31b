"""The calls of the engine that no scenario passes, one transition each."""

from agentos.testing.crashtest.transition import Transition
from agentos.testing.crashtest.transitions import flows, leases, records, submits, upkeep

TRANSITIONS: tuple[Transition, ...] = (
    *submits.TRANSITIONS,
    *leases.TRANSITIONS,
    *records.TRANSITIONS,
    *upkeep.TRANSITIONS,
    *flows.TRANSITIONS,
)

__all__ = ["TRANSITIONS"]
