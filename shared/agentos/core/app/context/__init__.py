"""The context of a running handler, awaited and blocking."""

from agentos.core.app.context.bound import GenerateFunction, Guard
from agentos.core.app.context.context import BlockingContext, TaskContext

__all__ = ["BlockingContext", "GenerateFunction", "Guard", "TaskContext"]
