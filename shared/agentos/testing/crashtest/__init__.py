"""The crash-point matrix: every primitive, killed before, during and after each of its commits."""

from agentos.testing.crashtest.crew import run_crew
from agentos.testing.crashtest.matrix import Cell, places_of, run_matrix
from agentos.testing.crashtest.scenario import Effects, Scenario
from agentos.testing.crashtest.scenarios import SCENARIOS
from agentos.testing.crashtest.transition import Transition
from agentos.testing.crashtest.transitions import TRANSITIONS

PRIMITIVES: tuple[Scenario | Transition, ...] = (*SCENARIOS, *TRANSITIONS)
"""All of the matrix. Agents first: a transition leaves behind what they would have to work off."""

__all__ = [
    "PRIMITIVES", "SCENARIOS", "TRANSITIONS", "Cell", "Effects", "Scenario", "Transition", "places_of", "run_crew",
    "run_matrix",
]  # fmt: skip
