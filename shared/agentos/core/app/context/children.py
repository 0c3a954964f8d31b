"""Child tasks: their own attempts, checkpoints and workers, one call to make and one to wait."""

from collections.abc import Mapping
from typing import Any, cast

from agentos.core.app.arguments import bind
from agentos.core.app.context.waits import BlockingWaits, Waits
from agentos.core.app.handler import check_deadline
from agentos.core.app.limits import limit_key_of
from agentos.core.flows import children
from agentos.core.flows.children import Child, NewChild, OnFailure
from agentos.core.tracing.step import step


class Children(Waits):
    """`ctx.spawn`, `ctx.gather`."""

    async def spawn(
        self, kind: str, payload: Mapping[str, Any] | None = None, *, key: str | None = None, title: str | None = None,
        queue: str | None = None, priority: int | None = None, max_attempts: int | None = None,
        timeout_s: float | None = None, deadline_s: float | None = None,
    ) -> Child:  # fmt: skip
        """Create a child task, once: an attempt that makes the same call again gets the same child.

        Told like a tool call: by `key`, or by kind, payload and place in the program. Cancelling this task cancels it.
        It is of this task's tenant; `priority`: default: this task's.
        `deadline_s`: seconds until it must have ended, as in `App.submit`; default: as its handler has it.
        Raises InvalidArguments: if the payload does not fit. CallBeforeCheckpoint, TaskCancelled, LeaseLost.
        """
        handler = self._guard.handler(kind)
        given = dict(payload or {})
        if handler is not None:
            bind(kind, handler.function, given)
        check_deadline(deadline_s)
        new = NewChild(
            kind, given, title or kind, queue or (handler.queue if handler else "default"), priority,
            max_attempts or (handler.max_attempts if handler else 5),
            timeout_s or (handler.timeout_s if handler else None), handler.version if handler else None,
            deadline_s or (handler.deadline_s if handler else None), limit_key_of(handler, given, None),
        )  # fmt: skip
        await self._park_if_paused()
        with step(f"spawn {kind}") as this:
            child = await self._run(children.spawn(self._scope, new, key))
            this.mark(child_task_id=child.task_id)
            return child

    async def gather(
        self, *spawned: Child, return_exceptions: bool = False, on_failure: OnFailure | None = None
    ) -> list[Any]:
        """Wait, as a row, until all these children have ended; their results in this order.

        `on_failure`, when one of them fails or is cancelled: `cancel` (the default) cancels the others and what they
        spawned, at once; `wait` (the default with `return_exceptions`) lets them go on to their ends.
        Raises ChildFailed, with the child's reason: for the first of them to fail or to be cancelled, once all have
        ended; with `return_exceptions` it takes the place of the result. Not caught, it fails this item at once.
        Raises InvalidInput: if `on_failure` is neither.
        """
        if not spawned:
            return []
        wait = children.gather(self._scope, spawned, return_exceptions=return_exceptions, on_failure=on_failure)
        return cast(list[Any], await self._wait_out(wait))


class BlockingChildren(BlockingWaits):
    """The same, blocking."""

    def spawn(
        self, kind: str, payload: Mapping[str, Any] | None = None, *, key: str | None = None, title: str | None = None,
        queue: str | None = None, priority: int | None = None, max_attempts: int | None = None,
        timeout_s: float | None = None, deadline_s: float | None = None,
    ) -> Child:  # fmt: skip
        """As `TaskContext.spawn`."""
        context = cast(Children, self._context)
        return self._wait(
            context.spawn(
                kind, payload, key=key, title=title, queue=queue, priority=priority, max_attempts=max_attempts,
                timeout_s=timeout_s, deadline_s=deadline_s,
            )
        )  # fmt: skip

    def gather(
        self, *spawned: Child, return_exceptions: bool = False, on_failure: OnFailure | None = None
    ) -> list[Any]:
        """As `TaskContext.gather`."""
        if not spawned:
            return []
        return cast(
            list[Any],
            self._wait_out(
                lambda scope: children.gather(
                    scope, spawned, return_exceptions=return_exceptions, on_failure=on_failure
                )
            ),
        )
