"""What a handler is given: the item's snapshot and the calls that make its work durable, one part a file."""

from agentos.core.app.context.artifacts import Artifacts, BlockingArtifacts
from agentos.core.app.context.calls import BlockingCalls, Calls
from agentos.core.app.context.children import BlockingChildren, Children
from agentos.core.app.context.models import BlockingModels, Models
from agentos.core.app.context.progress import BlockingProgress, Progress
from agentos.core.app.context.transactions import BlockingTransactions, Transactions
from agentos.core.app.context.work import BlockingWork, Work


class TaskContext(Artifacts, Calls, Models, Children, Work, Progress, Transactions):
    """Passed to every async handler as its first argument."""


class BlockingContext(
    BlockingArtifacts,
    BlockingCalls,
    BlockingModels,
    BlockingChildren,
    BlockingWork,
    BlockingProgress,
    BlockingTransactions,
):  # fmt: skip
    """Passed to plain (`def`) handlers, which run in a thread: the same calls, blocking."""
