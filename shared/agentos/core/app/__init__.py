"""The async API: an `App` of task handlers and tools, the `TaskContext` they are given, handles on submitted tasks."""

from agentos.core.app.context import BlockingContext, TaskContext
from agentos.core.app.handle import AsyncSubmittedTask, SubmittedTask, TaskHandle
from agentos.core.app.handler import Handler
from agentos.core.app.limits import Limit, Rate
from agentos.core.app.registry import App
from agentos.core.app.retry import Retry
from agentos.core.budget import Budget
from agentos.core.flows.tools import NOT_DONE, UNKNOWN, Done, ToolCall
from agentos.core.llm import Completion
from agentos.store.errors import IsolatedHandlerDied, NonRetryable, RetryAfter

__all__ = [
    "NOT_DONE", "UNKNOWN", "App", "AsyncSubmittedTask", "BlockingContext", "Budget", "Completion", "Done",
    "Handler", "IsolatedHandlerDied", "Limit", "NonRetryable", "Rate", "Retry", "RetryAfter", "SubmittedTask",
    "TaskContext", "TaskHandle", "ToolCall",
]  # fmt: skip
