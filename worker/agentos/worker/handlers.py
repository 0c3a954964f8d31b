"""From a claimed item to the code that runs it: a user's handler or a built-in kind."""

import asyncio
from collections.abc import Callable
from typing import Any

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.core.app.arguments import bind
from agentos.core.kinds import BUILTIN
from agentos.core.logs import get_logger
from agentos.core.scope import ItemScope
from agentos.store.errors import ToolTimeout, UnknownKind
from agentos.store.run import AsyncRunner, adrive

log = get_logger(__name__)

UNWILLING_S = 2.0
"""How long a handler that was told to end may take to do so."""

abandoned: set["asyncio.Task[Any]"] = set()
"""Handlers that were told to end and did not. They hold no lease, so nothing they write counts."""


async def supervised(handler: "asyncio.Task[Any]", timeout_s: float | None) -> Any:
    """The handler's result. Cancelled, or out of time, it is told to end; one that does not is left to itself.

    Raises ToolTimeout: if it ran longer than `timeout_s`. Otherwise whatever the handler raises.
    """
    try:
        await asyncio.wait({handler}, timeout=timeout_s)
    except asyncio.CancelledError:
        await _end(handler)
        if handler.done():
            return handler.result()
        raise
    if handler.done():
        return handler.result()
    await _end(handler)
    if handler.done() and not handler.cancelled() and handler.exception() is None:
        return handler.result()
    raise ToolTimeout(f"the handler ran longer than its timeout_s of {timeout_s:g}")


async def _end(handler: "asyncio.Task[Any]") -> None:
    handler.cancel()
    await asyncio.wait({handler}, timeout=UNWILLING_S)
    if not handler.done():
        log.error("the handler does not end when it is cancelled; left to itself", seconds=UNWILLING_S)
        abandoned.add(handler)
        handler.add_done_callback(_gone)


def _gone(handler: "asyncio.Task[Any]") -> None:
    abandoned.discard(handler)
    if not handler.cancelled() and (exc := handler.exception()) is not None:
        log.debug("an abandoned handler ended", error=str(exc))


async def run_handler(app: App, scope: ItemScope, context: TaskContext, db: AsyncRunner) -> Any:
    """Run what is registered for the item's kind and return its result.

    Raises UnknownKind, InvalidArguments: before anything ran. Otherwise whatever the handler raises.
    """
    try:
        return await _run(app, scope, context, db)
    except (SystemExit, KeyboardInterrupt) as exc:  # out of a task they would end the whole process
        raise RuntimeError(f"the handler raised {type(exc).__name__}: {exc}") from exc


async def _run(app: App, scope: ItemScope, context: TaskContext, db: AsyncRunner) -> Any:
    context.enter()
    kind = scope.item.kind
    handler = app.handlers.get(kind)
    if handler is None:
        if kind not in BUILTIN:
            raise UnknownKind(f"this worker has no handler for {kind!r}", hint="start it with --app module:app")
        return await adrive(db, BUILTIN[kind](scope, scope.item.payload))
    arguments = bind(kind, handler.function, scope.item.payload)
    if handler.is_async:
        return await handler.function(context, **arguments)
    blocking = BlockingContext(context, asyncio.get_running_loop())
    try:
        return await asyncio.to_thread(_call, handler.function, blocking, arguments)
    except asyncio.CancelledError:  # the waiting ended, the thread goes on until it asks its context for something
        blocking.end()
        raise


def _call(function: Callable[..., Any], blocking: BlockingContext, arguments: dict[str, Any]) -> Any:
    """In the handler's own thread."""
    blocking.enter()
    return function(blocking, **arguments)
