"""pgtask. Default: 8 at a time, all else as it comes. Fast: 64 at a time, 20 connections, no retention beside it."""

import asyncio
import time
from typing import Any

from pgtask import Client, EnqueueRequest, Task, TaskRegistry, Worker

from bench.peers import protocol

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {"concurrency": 8},
    "fast": {"concurrency": 64, "max_query_connections": 20, "retention_enabled": False},
}
CHUNK = 1000
"""What enqueue_many takes in one call without complaint."""
NOOP = EnqueueRequest[None]("noop", protocol.PAYLOAD, queue_name="bench")


async def _connect(dsn: str, **options: Any) -> Client:
    return await Client.connect(_named(dsn), **options)


def _named(dsn: str) -> str:
    """With a host's name: this client refuses a URL without one, even where `host=` gives a socket's folder."""
    return dsn.replace("@/", "@localhost/", 1)


async def install(dsn: str) -> None:
    await (await _connect(dsn)).migrate()


async def fill(dsn: str, count: str) -> float:
    client = await _connect(dsn)

    async def all_of_them() -> None:
        for first in range(0, int(count), CHUNK):
            await client.enqueue_many([NOOP] * min(CHUNK, int(count) - first))

    return await protocol.timed(all_of_them())


async def submit(dsn: str, clients: str, seconds: str) -> float:
    handles = [await _connect(dsn, max_query_connections=1) for _ in range(int(clients))]
    return await protocol.rate(len(handles), float(seconds), lambda n: handles[n].enqueue(NOOP))


async def trickle(dsn: str, count: str) -> list[int]:
    client = await _connect(dsn)
    return await protocol.trickle(int(count), lambda _: client.enqueue(NOOP))


async def worker(dsn: str, configuration: str, until: str) -> None:
    registry, times = TaskRegistry("bench"), list[int]()

    @registry.task("noop")
    async def noop(task: Task, payload: object) -> None:
        times.append(time.monotonic_ns())

    served = Worker(_named(dsn), registry, **OPTIONS[configuration])
    running = asyncio.create_task(served.run())
    await protocol.run_until(until, times, running, served.shutdown)
    await running


async def steps(dsn: str, configuration: str, tasks: str, count: str) -> list[list[int]]:
    registry, snapshot = TaskRegistry("steps"), {"state": "x" * 1012}

    @registry.task("steps")
    async def many(task: Task, payload: object) -> list[int]:
        times = [time.monotonic_ns()]
        for n in range(int(count)):
            await task.step("step", lambda: _value(snapshot), occurrence=n)
            times.append(time.monotonic_ns())
        return times

    client, served = await _connect(dsn), Worker(_named(dsn), registry, **OPTIONS[configuration])
    running = asyncio.create_task(served.run())
    handles = [await client.enqueue(many.request(None)) for _ in range(int(tasks))]
    found = [await handle.result(60) for handle in handles]
    served.shutdown()
    await running
    return [each.result for each in found if each is not None and each.result is not None]


async def _value(value: object) -> object:
    return value


if __name__ == "__main__":
    protocol.main(
        {"install": install, "fill": fill, "submit": submit, "trickle": trickle, "worker": worker, "steps": steps}
    )
