"""What every part of a context stands on: the running item, and how its flows are driven."""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, Protocol, TypeVar

from agentos.core.app.context.task_log import TaskLog
from agentos.core.parked import Parked
from agentos.core.scope import ItemScope
from agentos.core.telling import Telling
from agentos.core.transaction import left_open, open_transaction, refuse_effect
from agentos.store.calls import items
from agentos.store.run import AsyncRunner, Flow, adrive

T = TypeVar("T")
ContextT = TypeVar("ContextT", bound="Bound")

GenerateFunction = Callable[..., Any]

CLEANUP_S = 2.0
"""What a handler may take to end after `Parked` was raised in it; then it is cancelled."""


def _stay(_after_s: float) -> None:
    """Nobody has to be told."""


def _go_on() -> bool:
    """Nobody pauses it."""
    return False


class Guard(Protocol):
    """The process around a handler: whether it may go on."""

    def after_checkpoint(self) -> None:
        """Raises when the worker drains: the work is saved, another host goes on."""

    def handler(self, kind: str) -> Any:
        """What this process has registered for a kind, or None."""


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
        self.leave: Callable[[float], None] = _stay
        """Called when the item was parked: ends, after so many seconds, what is left of the handler."""
        self.take_pause: Callable[[], bool] = _go_on
        """Whether the process was told, since this was last asked, that the task is paused."""
        self._main: asyncio.Task[Any] | None = None
        self._left = False
        self._busy = 0
        self._streams = 0
        self._pausing = False
        self._waiting: set[asyncio.Task[Any]] = set()

    @functools.cached_property
    def _asking(self) -> asyncio.Lock:
        return asyncio.Lock()

    @functools.cached_property
    def _changed(self) -> asyncio.Event:
        return asyncio.Event()

    @functools.cached_property
    def log(self) -> TaskLog:
        """`ctx.log("message", field=value)`: a log line, and an event of the task."""
        return TaskLog(self._scope.lease.fence, self.attempt, self._telling)

    def enter(self, task: "asyncio.Task[Any] | None" = None) -> None:
        """The handler runs in this task, else in the one that calls this: what it awaits itself is all that it does."""
        self._main = asyncio.current_task() if task is None else task

    @property
    def left(self) -> bool:
        """Whether the item was parked: however the handler ends then, it counts for nothing."""
        return self._left

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
    def version(self) -> int:
        """Which version of its handler the item is pinned to; 0: of one that has none."""
        return self._scope.item.version

    @property
    def attempt(self) -> int:
        """Which claim of the item this is, from 1."""
        return self._scope.item.attempt

    async def _run(self, flow: Flow[T]) -> T:
        """While this runs the item is not parked: a wait in another branch, or in the tool itself, keeps the slot."""
        if self._pausing:
            async with self._asking:  # nothing may begin under a lease that is about to end
                pass
        if self._left:
            raise Parked
        if transaction := open_transaction(self._scope):
            return await adrive(transaction, flow)
        if self._scope.joined is not None:
            await left_open(self._scope, self._db)
        self._busy += 1
        try:
            return await adrive(self._db, flow)
        except Parked:
            self._parked(alone=asyncio.current_task() is self._main)
            raise
        finally:
            self._busy -= 1

    async def _park_if_paused(self) -> None:
        """Before a recorded call and after a checkpoint, unless that would cut off what was begun. Raises Parked."""
        if self._busy or self._streams or self._scope.joined is not None or open_transaction(self._scope):
            return
        if self.take_pause():
            self._pausing = True
            try:
                async with self._asking:
                    if not self._left and await self._db.run(items.park_paused(self._scope.lease.fence)):
                        self._parked(alone=asyncio.current_task() is self._main)
            finally:
                self._pausing = False
        if self._left:
            raise Parked

    def _parked(self, *, alone: bool) -> None:
        """The lease has ended. `alone`: `Parked` is raised in the handler itself, which may clean up; else its other
        branches are told to end now.
        """
        self._left = True
        self.leave(CLEANUP_S if alone else 0.0)

    async def _drive(self, flow: Flow[T]) -> T:
        refuse_effect("a wait")
        return await adrive(self._db, flow)


class BlockingBound(Generic[ContextT]):
    """The same item seen from a handler in a thread: what it asks is awaited on the worker's loop."""

    def __init__(self, context: ContextT, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._asked: set[Future[Any]] = set()
        self._ended = False
        self._thread: int | None = None

    def enter(self) -> None:
        """The handler runs in the thread that calls this."""
        self._thread = threading.get_ident()

    def end(self) -> None:
        """The handler must end: what it waits for is cancelled, and what it asks from now on too. On the loop."""
        self._ended = True
        for asked in list(self._asked):
            asked.cancel()

    def __getattr__(self, name: str) -> Any:
        if name in ("snapshot", "task_id", "item_id", "key", "attempt", "version", "log"):
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
