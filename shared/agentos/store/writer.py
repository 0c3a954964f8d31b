"""Writes of concurrent items in shared commits: what is asked while a commit is under way goes with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from agentos.store.calls.batch import write_batch
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Call

T = TypeVar("T")
Asked = TypeVar("Asked")

NOT_DONE: Final = object()
"""The reply of what a batch left out."""

MOST = 64
"""In one transaction."""
MOST_CHARACTERS = 4 * 1024 * 1024
"""Of their long texts together: a long message holds every lease in it for as long as it takes."""


class Gatherer(Generic[Asked]):
    """Sends what is asked: one at once when no other is under way, those asked meanwhile in one batch.

    `one` sends one, and its reply is the caller's; `many` sends several and returns as many replies, NOT_DONE among
    them for what it left out. Every caller waits for its own commit and gets its own answer: what a batch left out, and
    everything of a batch that failed as a whole, is sent alone. When the database did not answer, each caller is told
    that. A caller that is cancelled stops waiting; what was sent is written all the same.
    """

    def __init__(
        self, one: Callable[[Asked], Awaitable[Any]], many: Callable[[list[Asked]], Awaitable[Sequence[Any]]],
        size: Callable[[Asked], int],
    ) -> None:  # fmt: skip
        self._one, self._many, self._size = one, many, size
        self._queue: list[tuple[Asked, asyncio.Future[Any]]] = []
        self._busy = False
        self._alone = True
        self._batches: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._busy

    async def put(self, asked: Asked) -> Any:
        """Send it. Returns its reply, raises what `one` raises."""
        if self._alone and not self._busy:
            return await self._at_once(asked)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        self._queue.append((asked, waiter))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # the others that the last batch woke are about to ask as well
        return await waiter

    async def _at_once(self, asked: Asked) -> Any:
        self._busy = True
        try:
            return await self._one(asked)
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

    def _taken(self) -> list[tuple[Asked, asyncio.Future[Any]]]:
        """The next batch; who has stopped waiting before it was sent is left out."""
        batch: list[tuple[Asked, asyncio.Future[Any]]] = []
        size = 0
        waiting = [each for each in self._queue if not each[1].done()]
        for each in waiting:
            size += self._size(each[0])
            if batch and (len(batch) == MOST or size > MOST_CHARACTERS):
                break
            batch.append(each)
        self._queue = waiting[len(batch) :]
        return batch

    async def _write(self, batch: Sequence[tuple[Asked, asyncio.Future[Any]]]) -> None:
        self._alone = len(batch) == 1
        left: Sequence[tuple[Asked, asyncio.Future[Any]]] = ()
        try:
            if self._alone:
                await self._told(*batch[0])
            else:
                left = await self._together(batch)
        except asyncio.CancelledError:  # with all tasks of the loop; nobody else would tell them
            for _, waiter in batch:
                waiter.cancel()
            raise
        finally:
            asyncio.get_running_loop().call_soon(self._next)  # behind those who were told now and ask again at once
        for asked, waiter in left:
            await self._told(asked, waiter)

    async def _together(
        self, batch: Sequence[tuple[Asked, asyncio.Future[Any]]]
    ) -> list[tuple[Asked, asyncio.Future[Any]]]:
        """Tell whose reply is there; returns the others."""
        try:
            replies = await self._many([asked for asked, _ in batch])
        except DatabaseUnavailable as exc:
            for _, waiter in batch:
                if not waiter.done():
                    waiter.set_exception(DatabaseUnavailable(exc.message, hint=exc.hint, detail=exc.detail))
            return []
        except Exception:  # whatever it is, it is the doing of one of them or of all: each finds out for itself
            return list(batch)
        left = []
        for each, reply in zip(batch, replies, strict=True):
            if reply is NOT_DONE:
                left.append(each)
            elif not each[1].done():
                each[1].set_result(reply)
        return left

    async def _told(self, asked: Asked, waiter: "asyncio.Future[Any]") -> None:
        """Send one alone. Nobody waits for it any more: it is not sent."""
        if waiter.done():
            return
        try:
            reply = await self._one(asked)
        except Exception as exc:
            if not waiter.done():
                waiter.set_exception(exc)
        else:
            if not waiter.done():
                waiter.set_result(reply)


class Writer:
    """Calls that can go `together`, gathered: whose lease is lost is told so, and nobody else. step_id and call_token
    let a caller that got no answer ask again.
    """

    def __init__(self, send: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._send = send
        self._gatherer: Gatherer[Call[Any]] = Gatherer(send, self._batch, _size)

    async def run(self, call: Call[T]) -> T:
        """Write it. Raises what the call raises."""
        return await self._gatherer.put(call)  # type: ignore[no-any-return]

    async def _batch(self, calls: list[Call[Any]]) -> list[Any]:
        rows = await self._send(write_batch(calls))
        return [
            NOT_DONE if row is None or call.together is None else call.together.plain(row)
            for call, row in zip(calls, rows, strict=True)
        ]


def _size(call: Call[Any]) -> int:
    return call.together.size if call.together else 0
