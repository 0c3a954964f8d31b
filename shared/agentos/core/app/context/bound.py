"""What every part of a context stands on: the running item, and how its flows are driven."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, Protocol, TypeVar

from agentos.core.app.context.task_log import TaskLog
from agentos.core.scope import ItemScope
from agentos.core.telling import Telling
from agentos.store.run import AsyncRunner, Flow, adrive

T = TypeVar("T")
ContextT = TypeVar("ContextT", bound="Bound")

GenerateFunction = Callable[[Any], Any]


class Guard(Protocol):
    """The process around a handler: whether it may go on."""

    def after_checkpoint(self) -> None:
        """Raises when the worker drains: the work is saved, another host goes on."""


class Bound:
    """A context bound to one attempt at one item.

    `snapshot`: what the newest checkpoint of this item that still holds carried; None on the first run.
    `task_id`, `item_id`, `attempt`, `key`: which item this is, and which claim of it.
    """

    def __init__(
        self, scope: ItemScope, db: AsyncRunner, guard: Guard, default_model: str, complete: GenerateFunction,
        telling: Telling | None = None,
    ) -> None:  # fmt: skip
        self._scope = scope
        self._db = db
        self._guard = guard
        self._model = default_model
        self._complete = complete
        self._telling = telling

    @functools.cached_property
    def log(self) -> TaskLog:
        """`ctx.log("message", field=value)`: a log line, and an event of the task."""
        return TaskLog(self._scope.lease.fence, self._telling)

    @property
    def snapshot(self) -> Any:
        """What the checkpoint this attempt resumed from carried; None: start from the beginning."""
        return self._scope.snapshot

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._scope.task_id

    @property
    def item_id(self) -> int:
        """The work item's id."""
        return self._scope.item.item_id

    @property
    def key(self) -> str | None:
        """The item's key in its plan, if it has one."""
        return self._scope.item.key

    @property
    def attempt(self) -> int:
        """Which claim of the item this is, from 1."""
        return self._scope.item.attempt

    async def _run(self, flow: Flow[T]) -> T:
        return await adrive(self._db, flow)


class BlockingBound(Generic[ContextT]):
    """The same item seen from a handler in a thread: what it asks is awaited on the worker's loop."""

    def __init__(self, context: ContextT, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._asked: set[Future[Any]] = set()
        self._ended = False

    def end(self) -> None:
        """The handler must end: what it waits for is cancelled, and what it asks from now on too. On the loop."""
        self._ended = True
        for asked in list(self._asked):
            asked.cancel()

    def __getattr__(self, name: str) -> Any:
        if name in ("snapshot", "task_id", "item_id", "key", "attempt", "log"):
            return getattr(self._context, name)
        raise AttributeError(f"a blocking task context has no {name!r}")

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._finish(self._start(coroutine))

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        asked = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._asked.add(asked)
        if self._ended:
            asked.cancel()
        return asked

    def _finish(self, asked: Future[T]) -> T:
        try:
            return asked.result()
        except CancelledError:
            raise asyncio.CancelledError from None  # the one that `except Exception` lets through
        finally:
            self._asked.discard(asked)
