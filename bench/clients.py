"""Clients that write all the time: asyncpg connections on a uvloop for the baselines, threads for the blocking API."""

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import uvloop

from agentos.store.settings import load_settings
from bench import layout

Write = Callable[["asyncpg.Connection[Any]"], Awaitable[Any]]


async def insert_bare(conn: "asyncpg.Connection[Any]") -> None:
    await conn.fetch(layout.BARE, "x" * 200)


class Clients:
    """So many asyncpg connections on one uvloop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def __enter__(self) -> "Clients":
        self._runner.__enter__()
        self._conns = self._runner.run(self._connect())
        return self

    def __exit__(self, *exc: object) -> None:
        for conn in self._conns:
            conn.terminate()
        self._runner.close()

    async def _connect(self) -> list["asyncpg.Connection[Any]"]:
        return [await asyncpg.connect(load_settings().dsn) for _ in range(self._count)]

    def rate(self, write: Write, seconds: float) -> float:
        """Writes per second of all of them together, each one after the other."""
        return self._runner.run(self._rate(write, seconds))

    def median_ms(self, write: Write, times: int) -> float:
        """Milliseconds of a write on the first connection, by the loop's own clock."""
        return self._runner.run(self._median_ms(write, times))

    async def _median_ms(self, write: Write, times: int) -> float:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            await write(self._conns[0])
            taken.append(time.perf_counter() - began)
        return statistics.median(taken) * 1000

    def once(self, write: Write) -> None:
        """One write on the first connection."""
        self._runner.run(_awaited(write(self._conns[0])))

    async def _rate(self, write: Write, seconds: float) -> float:
        async def client(conn: "asyncpg.Connection[Any]") -> int:
            done = 0
            while time.perf_counter() < until:
                await write(conn)
                done += 1
            return done

        began = time.perf_counter()
        until = began + seconds
        return sum(await asyncio.gather(*map(client, self._conns))) / (time.perf_counter() - began)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


def threads(count: int, write: Callable[[], None], seconds: float) -> float:
    """Writes per second of so many threads together."""
    done = [0] * count

    def client(n: int) -> None:
        while time.perf_counter() < until:
            write()
            done[n] += 1

    began = time.perf_counter()
    until = began + seconds
    if count == 1:
        client(0)
    else:
        running = [threading.Thread(target=client, args=(n,)) for n in range(count)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return sum(done) / (time.perf_counter() - began)
