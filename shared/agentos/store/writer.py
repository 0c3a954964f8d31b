"""Writes of concurrent items in shared commits: what is asked while a commit is under way goes with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from agentos.store.calls.batch import write_batch
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Call

T = TypeVar("T")

MOST = 64
"""Calls in one transaction."""
MOST_CHARACTERS = 4 * 1024 * 1024
"""Of their long texts together: a long message holds every lease in it for as long as it takes."""


class Writer:
    """Sends calls that can go `together`: one at once when no other is under way, those asked meanwhile in one batch.

    Every caller waits for its own commit and gets its own answer. What a batch leaves out, and every call of a batch
    that failed as a whole, is made alone: whose lease is lost is told so, and nobody else. When the database did not
    answer, each caller is told that: step_id and call_token let it ask again.
    A caller that is cancelled stops waiting; what was sent is written all the same.
    """

    def __init__(self, send: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._send = send
        self._queue: list[tuple[Call[Any], asyncio.Future[Any]]] = []
        self._busy = False
        self._alone = True
        self._batches: set[asyncio.Task[None]] = set()

    async def run(self, call: Call[T]) -> T:
        """Write it. Raises what the call raises."""
        if self._alone and not self._busy:
            return await self._at_once(call)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        self._queue.append((call, waiter))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # the others that the last batch woke are about to ask as well
        return await waiter

    async def _at_once(self, call: Call[T]) -> T:
        self._busy = True
        try:
            return await self._send(call)  # type: ignore[no-any-return]
        finally:
            if self._queue:
                self._next()
            else:
                self._busy = False

    def _next(self) -> None:
        """Send what waits; nobody else is sending."""
        batch = self._taken()
        self._busy = bool(batch)
        if batch:
            task = asyncio.get_running_loop().create_task(self._write(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _taken(self) -> list[tuple[Call[Any], asyncio.Future[Any]]]:
        """The next batch; who has stopped waiting before it was sent is left out."""
        batch: list[tuple[Call[Any], asyncio.Future[Any]]] = []
        size = 0
        waiting = [each for each in self._queue if not each[1].done()]
        for each in waiting:
            size += each[0].together.size if each[0].together else 0
            if batch and (len(batch) == MOST or size > MOST_CHARACTERS):
                break
            batch.append(each)
        self._queue = waiting[len(batch) :]
        return batch

    async def _write(self, batch: Sequence[tuple[Call[Any], asyncio.Future[Any]]]) -> None:
        self._alone = len(batch) == 1
        left: Sequence[tuple[Call[Any], asyncio.Future[Any]]] = ()
        try:
            if self._alone:
                await self._told(*batch[0])
            else:
                left = await self._together(batch)
        finally:
            asyncio.get_running_loop().call_soon(self._next)  # behind those who were told now and ask again at once
        for call, waiter in left:
            await self._told(call, waiter)

    async def _together(
        self, batch: Sequence[tuple[Call[Any], asyncio.Future[Any]]]
    ) -> list[tuple[Call[Any], asyncio.Future[Any]]]:
        """Tell whose call was plain; returns the others."""
        try:
            rows = await self._send(write_batch([call for call, _ in batch]))
        except DatabaseUnavailable as exc:
            for _, waiter in batch:
                if not waiter.done():
                    waiter.set_exception(DatabaseUnavailable(exc.message, hint=exc.hint, detail=exc.detail))
            return []
        except Exception:  # whatever it is, it is the doing of one of them or of all: each finds out for itself
            return list(batch)
        left = []
        for (call, waiter), row in zip(batch, rows, strict=True):
            if row is None or call.together is None:
                left.append((call, waiter))
            elif not waiter.done():
                waiter.set_result(call.together.plain(row))
        return left

    async def _told(self, call: Call[Any], waiter: "asyncio.Future[Any]") -> None:
        """Make a call alone. Nobody waits for it any more: it is not made."""
        if waiter.done():
            return
        try:
            reply = await self._send(call)
        except Exception as exc:
            if not waiter.done():
                waiter.set_exception(exc)
        else:
            if not waiter.done():
                waiter.set_result(reply)
