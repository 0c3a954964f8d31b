"""The connections that submits are awaited on: a pool for each loop of the process, gone with the loop.

They are not those of the threads: a socket that a loop watches is no other's to read.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from weakref import WeakKeyDictionary

from agentos.store.awaited import Watched
from agentos.store.direct import Session
from agentos.store.pool import Pool
from agentos.store.session_pool import IDLE_S, LIFETIME_S


class LoopPools:
    """Up to `max_size` connections in each loop. `connect` blocks, and is called in a thread."""

    def __init__(self, connect: Callable[[], Session], max_size: int) -> None:
        self._connect, self._max_size = connect, max_size
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPool] = WeakKeyDictionary()
        self._lock = threading.Lock()

    async def pool(self) -> "_LoopPool":
        """Of the running loop."""
        loop = asyncio.get_running_loop()
        return self._pools.get(loop) or await self._new(loop)

    def terminate(self) -> None:
        """Soon, in each loop that runs: close what there is."""
        with self._lock:
            pools = [*self._pools.items()]
            self._pools.clear()
        for loop, pool in pools:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pool.terminate)

    async def _new(self, loop: asyncio.AbstractEventLoop) -> "_LoopPool":
        pool = _LoopPool(self._connect, self._max_size)
        with self._lock:
            for ended, its in [*self._pools.items()]:
                if ended.is_closed():
                    its.terminate()
                    del self._pools[ended]
            self._pools[loop] = pool
        pool.until_the_loop_ends = self._until_it_ends(loop, pool)
        await anext(pool.until_the_loop_ends)
        return pool

    async def _until_it_ends(self, loop: asyncio.AbstractEventLoop, pool: "_LoopPool") -> AsyncGenerator[None]:
        """Whoever ends a loop closes the asynchronous generators that were begun in it: `asyncio.run` does."""
        try:
            yield
        finally:
            if self._pools.get(loop) is pool:
                del self._pools[loop]
            pool.terminate()


class _LoopPool(Pool[Watched]):
    """Closes what nobody wanted for a minute or two, and what is old."""

    until_the_loop_ends: AsyncGenerator[None]

    def __init__(self, connect: Callable[[], Session], max_size: int) -> None:
        async def watched() -> Watched:
            conn = Watched(await asyncio.to_thread(connect))
            if self._timer is None:
                self._look_later()
            return conn

        super().__init__(watched, max_size)
        self._timer: asyncio.TimerHandle | None = None

    def terminate(self) -> None:
        """As in `Pool`."""
        if self._timer is not None:
            self._timer.cancel()
        super().terminate()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._look)

    def _look(self) -> None:
        old = time.monotonic() - LIFETIME_S
        if self.close_free(lambda conn: conn.idles() or conn.born < old):
            self._look_later()
        else:
            self._timer = None
