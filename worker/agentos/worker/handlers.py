"""From a claimed item to the code that runs it: a user's handler or a built-in kind."""

import asyncio
from collections.abc import Callable
from typing import Any

from agentos.core.app import BlockingContext, Handler, TaskContext
from agentos.core.app.arguments import bind
from agentos.core.kinds import BUILTIN
from agentos.core.logs import get_logger
from agentos.core.scope import ItemScope
from agentos.store.errors import UnknownKind
from agentos.store.run import AsyncRunner, adrive
from agentos.worker.isolated.process import HandlerProcess

log = get_logger(__name__)

abandoned: set["asyncio.Task[Any]"] = set()
"""Handlers that were told to end and did not. They hold no lease, so nothing they write counts."""


def leave_alone(handler: "asyncio.Task[Any]", grace_s: float) -> None:
    """It was told to end and does not: the process goes on, and ends, without it."""
    log.error("the handler does not end when it is cancelled; left to itself", grace_s=grace_s)
    abandoned.add(handler)
    handler.add_done_callback(_gone)


def _gone(handler: "asyncio.Task[Any]") -> None:
    abandoned.discard(handler)
    if not handler.cancelled() and (exc := handler.exception()) is not None:
        log.debug("an abandoned handler ended", error=str(exc))


async def run_handler(
    handler: Handler | None, scope: ItemScope, context: TaskContext, db: AsyncRunner, process: HandlerProcess | None
) -> Any:
    """Run what is registered for the item's kind and return its result. `process`: of a handler that is isolated.

    Raises UnknownKind, InvalidArguments: before anything ran. Otherwise whatever the handler raises.
    """
    item = scope.item
    try:
        if handler is None:
            return await _built_in(item.kind, scope, db)
        arguments = bind(item.kind, handler.function, item.payload)
        if process is not None:
            return await process.run(handler, scope, context)
        if handler.is_async:
            return await handler.function(context, **arguments)
        return await _in_thread(handler, context, arguments)
    except (SystemExit, KeyboardInterrupt) as exc:  # out of a task they would end the whole process
        raise RuntimeError(f"the handler raised {type(exc).__name__}: {exc}") from exc


async def _built_in(kind: str, scope: ItemScope, db: AsyncRunner) -> Any:
    if kind not in BUILTIN:
        raise UnknownKind(f"this worker has no handler for {kind!r}", hint="start it with --app module:app")
    return await adrive(db, BUILTIN[kind](scope, scope.item.payload))


async def _in_thread(handler: Handler, context: TaskContext, arguments: dict[str, Any]) -> Any:
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
