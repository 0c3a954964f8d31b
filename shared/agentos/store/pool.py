"""The connections that awaited calls of one process go out on: asyncpg's, and those that submits are awaited on.

asyncpg's own pool makes a task and wraps the connection each time one is lent: 100 us of the client, a tenth of a step.
Calls leave nothing behind that would have to be reset. The connection that came back last goes out first: whoever makes
one call after the other keeps one process of the server at it, whose caches are warm.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Lendable(Protocol):
    """What a pool asks of its connections."""

    def is_closed(self) -> bool:
        """Whether it is of no more use."""

    def terminate(self) -> None:
        """Close it at once."""


Lent = TypeVar("Lent", bound=Lendable)


class Pool(Generic[Lent]):
    """Up to `max_size` connections, each made by `connect` when it is needed."""

    def __init__(self, connect: Callable[[], Awaitable[Lent]], max_size: int) -> None:
        self._connect = connect
        self._max_size = max_size
        self._all: set[Lent] = set()
        self._free: list[Lent] = []
        self._made = 0
        self._terminated = False
        self._waiters: deque[asyncio.Future[Lent | None]] = deque()

    async def take(self) -> Lent:
        """One for the caller alone, until `give`. Raises what connecting raises."""
        while True:
            while self._free:
                conn = self._free.pop()
                if not conn.is_closed():
                    return conn
                self._forget(conn)
            if self._made < self._max_size:
                return await self._new()
            if (given := await self._next()) is not None:
                return given

    def give(self, conn: Lent, *, usable: bool = True) -> None:
        """Back. Not `usable`: a call on it was cut off, and nobody knows what comes next from it; it is closed."""
        if not usable:
            conn.terminate()
        if conn.is_closed():
            self._forget(conn)
            self._tell(None)
        elif not self._tell(conn):
            self._free.append(conn)

    def close_free(self, unwanted: Callable[[Lent], bool]) -> int:
        """Close those that nobody has and nobody wants. Returns how many connections are left."""
        for conn in [each for each in self._free if unwanted(each)]:
            self._free.remove(conn)
            conn.terminate()
            self._forget(conn)
        return self._made

    def terminate(self) -> None:
        """Close all of them at once; what runs is ended, and what is being made ends as it comes."""
        self._terminated = True
        for conn in self._all:
            conn.terminate()

    async def _new(self) -> Lent:
        self._made += 1
        try:
            conn = await self._connect()
        except BaseException:
            self._made -= 1
            self._tell(None)
            raise
        self._all.add(conn)
        if self._terminated:
            conn.terminate()
        return conn

    async def _next(self) -> Lent | None:
        """The next that comes back; None: there is room for a new one."""
        waiter: asyncio.Future[Lent | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given one in the same turn of the loop
                given = waiter.result()
                self._tell(None) if given is None else self.give(given)
            raise

    def _tell(self, conn: Lent | None) -> bool:
        """Whether somebody waited for it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(conn)
                return True
        return False

    def _forget(self, conn: Lent) -> None:
        if conn in self._all:
            self._all.discard(conn)
            self._made -= 1
