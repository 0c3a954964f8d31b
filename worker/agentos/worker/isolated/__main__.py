"""The process of one attempt: `python -m agentos.worker.isolated module:app`, its socket to the worker at descriptor 3.

It dies with the worker: the keeper kills it, and at the latest the end of its socket ends it.
"""

import asyncio
import faulthandler
import os
import socket
import sys
from typing import Any

from agentos.core.app import Handler
from agentos.core.app.arguments import bind
from agentos.core.logs import configure_logs
from agentos.core.tracing import setup as tracing
from agentos.store.errors import UnknownKind
from agentos.worker.isolated.context import BlockingIsolatedContext, IsolatedContext
from agentos.worker.isolated.wire import Channel, Message, error_as_json
from agentos.worker.options import load_app

SOCKET = 3


async def _main(reference: str) -> None:
    os.set_inheritable(SOCKET, False)
    channel = Channel(*await asyncio.open_connection(sock=socket.socket(fileno=SOCKET)))
    start = await channel.receive()
    if start is None:
        return
    context = IsolatedContext(channel, start)
    handling = asyncio.create_task(_handled(reference, start, context))
    blocking: list[BlockingIsolatedContext] = start.setdefault("blocking", [])
    listening = asyncio.create_task(_listen(channel, context, handling, blocking))
    try:
        outcome = {"done": await _flushed(handling)}
        sys.stdout.flush()
        channel.send(outcome, "result of the handler")
    except BaseException as exc:  # whatever it is: the worker decides what it means
        channel.send({"raised": error_as_json(exc)})
    listening.cancel()
    await channel.flush()


async def _flushed(handling: "asyncio.Task[Any]") -> Any:
    """What the handler comes to. Its spans are sent before: when the worker knows how it ended it ends this process."""
    try:
        return await handling
    finally:
        if tracing.find() is not None:
            await asyncio.to_thread(tracing.flush)


async def _listen(
    channel: Channel, context: IsolatedContext, handling: "asyncio.Task[Any]", blocking: list[Any]
) -> None:
    while (message := await channel.receive()) is not None:
        if "cancel" in message:
            for each in blocking:
                each.end()
            handling.cancel()
        else:
            context.hear(message)
    os._exit(1)  # the worker is gone


async def _handled(reference: str, start: Message, context: IsolatedContext) -> Any:
    sys.path[:] = start["path"]
    handler: Handler | None = load_app(reference).handlers.get(start["kind"])
    if headers := start.get("trace"):
        _go_on_in(headers)
    if handler is None:
        raise UnknownKind(f"{reference} has no handler for {start['kind']!r}", hint="register it when it is imported")
    arguments = bind(start["kind"], handler.function, start["payload"])
    context.enter()
    if handler.is_async:
        return await handler.function(context, **arguments)
    blocking = BlockingIsolatedContext(context, asyncio.get_running_loop())
    start["blocking"].append(blocking)

    def call() -> Any:
        blocking.enter()
        return handler.function(blocking, **arguments)

    return await asyncio.to_thread(call)


def _go_on_in(headers: dict[str, str]) -> None:
    """The worker traces: spans of the handler's own, and of what it imports, are below its attempt."""
    tracing.install("agentos-worker")
    if tracing.find() is not None:
        from agentos.core.tracing.tracer import join  # noqa: PLC0415  only where OpenTelemetry is there already

        join(headers)


if __name__ == "__main__":
    faulthandler.enable()
    configure_logs("json", "info")
    asyncio.run(_main(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # a thread of the handler's must not keep it
