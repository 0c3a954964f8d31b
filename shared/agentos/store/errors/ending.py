"""How a task or an attempt ended."""

from agentos.store.errors.base import AgentOSError
from agentos.store.errors.refused import InvalidInput


class ArtifactUnavailable(AgentOSError):
    """The artifact store cannot be reached or written to, or does not have the artifact whole. It may later."""


class CommandFailed(AgentOSError):
    """A command of a work item ended with an exit code that its item does not allow."""


class IsolatedHandlerDied(AgentOSError):
    """The process of a handler with `isolation="process"` ended without a result: a signal, its memory limit, its
    deadline, an exit. A failure of that attempt like any other; the message names the signal.
    """


class DemoFailed(AgentOSError):
    """A process of `agentos demo` did not appear, or ended by itself."""


class NonRetryable(AgentOSError):
    """Raise it in a handler to fail the item at once, whatever `max_attempts` says."""


class BudgetExceeded(NonRetryable):
    """The task's budget does not allow the call: which limit, what is spent, what was asked. It was not made."""


class RetryAfter(AgentOSError):
    """Raise it in a handler to be called again after so many seconds. It counts as a failure of the attempt."""

    def __init__(self, seconds: float, message: str | None = None) -> None:
        """Raises InvalidInput: if `seconds` is not between 0 and 30 days."""
        if not 0 <= seconds <= 30 * 86_400:
            raise InvalidInput(f"RetryAfter({seconds!r})", hint="pass seconds, at most 30 days of them")
        super().__init__(message or f"try again after {seconds:g} s")
        self.wait_s = float(seconds)


class LLMError(AgentOSError):
    """The model's endpoint answered with an error, or with something that cannot be used."""


class LLMUnavailable(LLMError):
    """The endpoint cannot be reached, is overloaded, or limits calls. The same call may succeed later."""

    wait_s: float | None = None
    """Seconds that the endpoint asks to wait, None if it does not say."""


class OutputTruncated(LLMError, NonRetryable):
    """The model's output was cut off by a limit or a filter. It was paid, and is not cached."""

    completion: object = None
    """What there is of it (a `Completion`), None if nothing is."""


class TaskFailed(AgentOSError):
    """The task failed; the message is its readable reason."""


class TaskTimeout(AgentOSError, TimeoutError):
    """The task did not end within the time given to `result(timeout)`; it goes on."""


class ApprovalRejected(NonRetryable):
    """A person said no to what `ctx.approval` asked. Not caught, it fails the item at once."""


class ChildFailed(NonRetryable):
    """A child task failed or was cancelled: raised by `ctx.gather`, with the child's reason."""


class WaitTimeout(NonRetryable, TimeoutError):
    """Nothing ended `ctx.wait_for` or `ctx.approval` within its `timeout_s`. It is recorded so: no retry mends it."""


class ToolLimitExceeded(AgentOSError):
    """A command used more memory or more processes than it may, and was killed."""


class ToolTimeout(AgentOSError):
    """A tool or handler ran longer than its `timeout_s` and was stopped."""


class TransactionAborted(AgentOSError):
    """A statement inside `ctx.transaction()` failed and its error was caught: the transaction cannot be committed."""


class TransactionTimeout(AgentOSError, TimeoutError):
    """`ctx.transaction()` was open longer than it may hold the lease's row. Nothing of it was kept."""
