"""The crash-point matrix: every primitive, killed before, during and after each of its commits."""

from agentos.testing.crashtest.matrix import Cell, run_matrix
from agentos.testing.crashtest.scenario import Effects, Scenario
from agentos.testing.crashtest.scenarios import SCENARIOS

__all__ = ["SCENARIOS", "Cell", "Effects", "Scenario", "run_matrix"]
