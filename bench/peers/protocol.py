"""What every driver is asked, as a process of its own: `DRIVER COMMAND DSN ARGUMENTS...`, one line of JSON back.

install                     make the peer's schema; answers null
fill COUNT                  enqueue so many no-ops in bulk; answers the seconds it took
submit CLIENTS SECONDS      enqueue one by one; answers how many per second
trickle COUNT               enqueue one every 30 ms; answers when each call returned
worker CONFIGURATION UNTIL  say "ready", run jobs, answer when each handler's first line ran. UNTIL `idle`: until none
                            came for a while; `told`: until stdin ends
steps CONFIGURATION TASKS N run so many tasks at once of N durable steps each; answers for each when every step was done

Times are nanoseconds of the machine's monotonic clock, which all processes share. Only the standard library is used
here: the scratch environments have no agentos.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

IDLE_S = 0.7
PAUSE_S = 0.03
PAYLOAD: dict[str, Any] = {"n": 1}


def answer(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value), flush=True)


async def run_until(until: str, times: list[int], worker: "asyncio.Task[Any]", stop: Callable[[], Any]) -> None:
    """Let the worker run until its time, and answer with the times."""
    print("ready", flush=True)
    if until == "told":
        await asyncio.to_thread(sys.stdin.readline)
    else:
        await _idle(times, worker)
    told = stop()
    if asyncio.iscoroutine(told):
        await told
    answer(times)


async def _idle(times: list[int], worker: "asyncio.Task[Any]") -> None:
    while not worker.done():
        before = len(times)
        await asyncio.sleep(IDLE_S)
        if times and len(times) == before:
            return


async def rate(clients: int, seconds: float, enqueue: Callable[[int], Awaitable[object]]) -> float:
    """Calls per second of so many clients, each one after the other; `enqueue` gets the client's number. One call of
    each comes before the clock starts.
    """
    await asyncio.gather(*map(enqueue, range(clients)))

    async def client(n: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await enqueue(n)
            done += 1
        return done

    began = time.perf_counter()
    until = began + seconds
    return sum(await asyncio.gather(*map(client, range(clients)))) / (time.perf_counter() - began)


async def trickle(count: int, enqueue: Callable[[int], Awaitable[object]]) -> list[int]:
    """When each call returned."""
    returned = []
    for _ in range(count):
        await enqueue(0)
        returned.append(time.monotonic_ns())
        await asyncio.sleep(PAUSE_S)
    return returned


async def timed(work: Awaitable[object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def main(commands: dict[str, Callable[..., Awaitable[object]]], runner: Callable[[Any], Any] = asyncio.run) -> None:
    """Do what the command line says."""
    command, dsn, *arguments = sys.argv[1:]

    async def answered() -> None:
        said = await commands[command](dsn, *arguments)
        if command != "worker":
            answer(said)
        os._exit(0)  # a driver's own threads may not survive the end of the interpreter: all is said

    runner(answered())
