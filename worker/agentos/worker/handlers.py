"""From a claimed item to the code that runs it: a user's handler or a built-in kind."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from agentos.core.kinds import BUILTIN

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.core.app.arguments import bind
from agentos.core.scope import ItemScope
from agentos.store.errors import UnknownKind
from agentos.store.run import AsyncRunner, adrive


async def run_handler(app: App, scope: ItemScope, context: TaskContext, db: AsyncRunner) -> Any:
    """Run what is registered for the item's kind and return its result.

    Raises UnknownKind, InvalidArguments: before anything ran. Otherwise whatever the handler raises.
    """
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
    return await in_own_thread(lambda: handler.function(blocking, **arguments))


async def in_own_thread(function: Callable[[], Any]) -> Any:
    """Run in a daemon thread made for it: a handler that never returns must not keep the process from ending.

    Cancelling stops the waiting, not the thread; its writes are fenced off then.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(method: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            method(value)

    def run() -> None:
        try:
            result = context.run(function)
        except BaseException as exc:  # carried to the loop, whatever it is
            carried = exc if isinstance(exc, Exception) else RuntimeError(f"{type(exc).__name__} in a handler's thread")
            _call(loop, settle, done.set_exception, carried)
        else:
            _call(loop, settle, done.set_result, result)

    threading.Thread(target=run, name="agentos-handler", daemon=True).start()
    return await done


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *args)
