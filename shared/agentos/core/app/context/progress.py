"""What a handler tells whoever follows its task: how far it is, and the tokens of a model as they come."""

import math

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.app.context.task_log import checked
from agentos.store.errors import InvalidInput
from agentos.store.redact import redact


class Progress(Bound):
    """`ctx.progress`. It does not wait: what is told is gathered and written a few times a second."""

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the item is: `done` of `total`, in whatever unit. `agentos show` and `follow` tell it.

        Only the newest is kept when it is said more often than it is written. Raises InvalidInput: if a number is
        negative, not finite, or `done` exceeds `total`. ValueTooLarge.
        """
        most = math.inf if total is None else total
        if not 0 <= done <= most or not math.isfinite(done) or (total is not None and not math.isfinite(total)):
            raise InvalidInput(f"progress of {done} of {total}", hint="0 <= done <= total, both finite")
        if self._telling is not None:
            said = {"done": done, "total": total, "message": None if message is None else redact(message)}
            data = {name: value for name, value in said.items() if value is not None}
            self._telling.add(self._scope.lease.fence, self.attempt, "progress", checked(data, "progress"))

    def tell_tokens(self, call: str, text: str) -> None:
        """Tokens of a model's output as they come; `call` is the operation. `ctx.llm` with a stream does this."""
        if self._telling is not None and text:
            self._telling.add(self._scope.lease.fence, self.attempt, "tokens", {"call": call, "text": text})


class BlockingProgress(BlockingBound[Progress]):
    """The same, blocking."""

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """As `TaskContext.progress`."""
        self._context.progress(done, total, message)
