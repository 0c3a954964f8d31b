"""The primitives, one scenario each."""

from agentos.testing.crashtest.scenario import Scenario
from agentos.testing.crashtest.scenarios import forks, isolated, models, operations, tools, waits, work

SCENARIOS: tuple[Scenario, ...] = (
    *work.SCENARIOS,
    *tools.SCENARIOS,
    *models.SCENARIOS,
    *waits.SCENARIOS,
    *isolated.SCENARIOS,
    *operations.SCENARIOS,
    *forks.SCENARIOS,
)

__all__ = ["SCENARIOS"]
