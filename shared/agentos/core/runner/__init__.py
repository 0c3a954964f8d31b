"""Running one task to its end in this process, without a worker or a coordinator."""

from agentos.core.runner.outcome import TaskOutcome
from agentos.core.runner.task_runner import TaskRunner

__all__ = ["TaskOutcome", "TaskRunner"]
