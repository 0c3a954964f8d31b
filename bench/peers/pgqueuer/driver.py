"""PgQueuer. Default: batches of 10, as `QueueManager.run` has it. Fast: batches of 200 on a uvloop."""

import asyncio
import json
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries

from bench.peers import protocol

BATCH = {"default": 10, "fast": 200}
BODY = json.dumps(protocol.PAYLOAD).encode()


async def _queries(dsn: str) -> Queries:
    return Queries(AsyncpgDriver(await asyncpg.connect(dsn)))


async def install(dsn: str) -> None:
    await (await _queries(dsn)).install()


async def fill(dsn: str, count: str) -> float:
    queries, n = await _queries(dsn), int(count)
    return await protocol.timed(queries.enqueue(["noop"] * n, [BODY] * n, [0] * n))


async def submit(dsn: str, clients: str, seconds: str) -> float:
    queries = [await _queries(dsn) for _ in range(int(clients))]
    return await protocol.rate(len(queries), float(seconds), lambda n: queries[n].enqueue("noop", BODY))


async def trickle(dsn: str, count: str) -> list[int]:
    queries = await _queries(dsn)
    return await protocol.trickle(int(count), lambda _: queries.enqueue("noop", BODY))


async def worker(dsn: str, configuration: str, until: str) -> None:
    app = PgQueuer(AsyncpgDriver(await asyncpg.connect(dsn)))
    times: list[int] = []

    @app.entrypoint("noop")
    async def noop(job: object) -> None:
        times.append(time.monotonic_ns())

    running = asyncio.create_task(app.qm.run(batch_size=BATCH[configuration]))
    await protocol.run_until(until, times, running, app.shutdown.set)
    running.cancel()


def runner(work):  # type: ignore[no-untyped-def]
    return uvloop.run(work)


if __name__ == "__main__":
    protocol.main(
        {"install": install, "fill": fill, "submit": submit, "trickle": trickle, "worker": worker}, runner=runner
    )
