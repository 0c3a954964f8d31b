"""An attempt in a process of its own: started under the keeper, listened to, and ended whatever it does.

```
 started ── asks, is answered ── "done", "raised" ─────────────────▶ its result, or what it raised
    ├─ a signal, an exit, its memory limit ────────────────────────▶ IsolatedHandlerDied: a failure of the attempt
    ├─ timeout_s ── SIGKILL at once ───────────────────────────────▶ IsolatedHandlerDied
    └─ cancelled, drained, lease lost, parked ── told, SIGKILL ─────▶ as for a handler in the worker; it has its grace
```
If the worker dies the keeper kills it and all that it started; the item is taken back like any other.
"""

import asyncio
import functools
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agentos.core.app import Handler
from agentos.core.app.context import TaskContext
from agentos.core.logs import get_logger
from agentos.core.scope import ItemScope
from agentos.core.shell.group import CommandGroup
from agentos.core.shell.limits import Limits
from agentos.core.tracing.step import carrier
from agentos.store.errors import IsolatedHandlerDied
from agentos.store.redact import redact
from agentos.worker.isolated.calls import Calls
from agentos.worker.isolated.wire import Channel, Message, error_from_json

log = get_logger(__name__)

ENDING_S = 1.0
"""What SIGKILL of a process that did not end in its grace may take, before the worker goes on without it."""
LAST_WORDS_S = 0.5
TAIL = 2000
"""Bytes of its output that an error shows."""
_CREDENTIAL_NAME = re.compile(r"^(PG[A-Z]+|AGENTOS_DSN)$", re.IGNORECASE)
_CREDENTIAL = re.compile(r"postgres(ql)?://", re.IGNORECASE)


class HandlerProcess:
    """Runs one attempt. `reference`: module:name of the app; `timed_out`: whether a cancellation means the deadline;
    `grace_s`: what a handler that is told to end may take.
    """

    def __init__(self, reference: str | None, timed_out: Callable[[], bool], grace_s: float) -> None:
        self._reference = reference
        self._grace_s = grace_s
        self._timed_out = timed_out
        self._tail = b""

    async def run(self, handler: Handler, scope: ItemScope, context: TaskContext) -> Any:
        """What the handler returns, or raises. Raises IsolatedHandlerDied: if its process ended without either."""
        try:
            return await self._run(handler, scope, context)
        except asyncio.CancelledError:
            if not self._timed_out():
                raise
        raise self._error(f"it ran longer than its timeout_s of {scope.item.timeout_s:g} and was killed with SIGKILL")

    async def _run(self, handler: Handler, scope: ItemScope, context: TaskContext) -> Any:
        assert self._reference is not None  # noqa: S101  Options has looked
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                group = await _started(self._reference, handler.memory_mb, theirs)
        except BaseException:
            ours.close()
            raise
        try:
            with self._watched(group) as ended:
                channel = Channel(*await asyncio.open_connection(sock=ours))
                try:
                    return await self._conversed(handler, scope, context, channel, group, ended)
                finally:
                    channel.close()
        finally:
            await asyncio.shield(asyncio.to_thread(group.end))

    async def _conversed(
        self, handler: Handler, scope: ItemScope, context: TaskContext, channel: Channel, group: CommandGroup,
        ended: asyncio.Event,
    ) -> Any:  # fmt: skip
        calls = Calls(context, channel)
        channel.send({
            "kind": handler.kind, "payload": scope.item.payload, "snapshot": context.snapshot, "key": context.key,
            "task_id": context.task_id, "item_id": context.item_id, "attempt": context.attempt,
            "version": context.version,
            "path": [str(each) for each in sys.path], "trace": carrier(),
        })  # fmt: skip
        listening = asyncio.create_task(_outcome(channel, calls))
        gone = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait((listening, gone, calls.left), return_when=asyncio.FIRST_COMPLETED)
            if calls.left.done():
                await asyncio.wait((listening, gone), timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
                raise calls.left.result()
            if not listening.done():  # what it said last may still be on its way
                await asyncio.wait((listening,), timeout=LAST_WORDS_S)
            outcome = listening.result() if listening.done() else None
            if outcome is None:
                await asyncio.wait((gone,), timeout=LAST_WORDS_S)
                raise self._died(handler, group)
            return self._ended_by_itself(handler, outcome)
        except asyncio.CancelledError:
            if not self._timed_out():
                channel.send({"cancel": True})
                await asyncio.wait((listening, gone), timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            listening.cancel()
            gone.cancel()
            await calls.end()

    def _ended_by_itself(self, handler: Handler, outcome: Message) -> Any:
        if "done" in outcome:
            return outcome["done"]
        error = error_from_json(outcome["raised"])
        if isinstance(error, MemoryError) and handler.memory_mb is not None:
            raise self._error(f"it was refused more than its memory_mb of {handler.memory_mb} (MemoryError)") from error
        raise error

    def _died(self, handler: Handler, group: CommandGroup) -> IsolatedHandlerDied:
        if group.limit is not None:
            return self._error(f"it used more than its memory_mb of {handler.memory_mb} and was killed with SIGKILL")
        code = group.code
        if code is None:
            return self._error("it does not answer any more and was killed with SIGKILL")
        if code > 128:
            name = signal.Signals(code - 128).name if code - 128 in list(signal.Signals) else f"signal {code - 128}"
            who = ": by the kernel for want of memory, or by hand" if name == "SIGKILL" else ""
            return self._error(f"it was killed by {name}{who}")
        return self._error(f"it ended with exit code {code} and no result")

    def _error(self, what: str) -> IsolatedHandlerDied:
        said = redact(self._tail.decode(errors="replace")).strip()
        return IsolatedHandlerDied(
            f"the process of the handler died: {what}",
            hint="the attempt counts as failed and is tried again as its policy says; the worker is well",
            detail=f"The end of its output:\n{said}" if said else None,
        )

    @contextmanager
    def _watched(self, group: CommandGroup) -> Iterator[asyncio.Event]:
        """Its output is passed on to the worker's, and its end sets the event. All without blocking the loop."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        streams = {group.stdout.fileno(): 1, group.stderr.fileno(): 2}
        news = group.control.fileno()

        def look() -> None:
            if group.ended():
                loop.remove_reader(news)
                ended.set()

        def read(fd: int) -> None:
            chunk = os.read(fd, 65536)
            if not chunk:
                loop.remove_reader(fd)
            self._tail = (self._tail + chunk)[-TAIL:]
            with suppress(OSError):  # nobody reads it
                os.write(streams[fd], chunk)

        loop.add_reader(news, look)
        for fd in streams:
            loop.add_reader(fd, functools.partial(read, fd))
        try:
            yield ended
        finally:
            for fd in (news, *streams):
                loop.remove_reader(fd)


async def _started(reference: str, memory_mb: int | None, theirs: socket.socket) -> CommandGroup:
    """In a thread. A cancellation meanwhile leaves nothing running."""
    start = functools.partial(
        CommandGroup, [sys.executable, "-m", "agentos.worker.isolated", reference], cwd=os.getcwd(),
        env=_environment(), limits=Limits(memory_mb=memory_mb), pass_fds=[theirs.fileno()],
    )  # fmt: skip
    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait((starting,))
        if starting.exception() is None:
            await asyncio.to_thread(starting.result().end)
        raise


def _environment() -> dict[str, str]:
    """The worker's, without what opens its database."""
    return {
        name: value for name, value in os.environ.items()
        if not _CREDENTIAL_NAME.match(name) and not _CREDENTIAL.search(value)
    }  # fmt: skip


async def _outcome(channel: Channel, calls: Calls) -> Message | None:
    """Answers until the handler says how it ended; None: it ended without a word."""
    while (message := await channel.receive()) is not None:
        if "done" in message or "raised" in message:
            return message
        calls.take(message)
    return None
