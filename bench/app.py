"""The handlers that the benchmark's workers serve."""

import asyncio
import os
import time
from pathlib import Path

from agentos.core.app import App, TaskContext

app = App()


@app.task("noop")
async def noop(ctx: TaskContext, n: int = 0) -> None:
    """Nothing."""


@app.task("began")
async def began(ctx: TaskContext) -> int:
    """When its first line ran, on the clock that all processes of a Linux machine share."""
    return time.monotonic_ns()


@app.task("steps")
async def steps(ctx: TaskContext, count: int, size: int, ledger: bool = False) -> list[int]:
    """When each of so many durable steps was asked for and the last one was done, in nanoseconds."""
    snapshot = {"state": "x" * size}
    times = [time.monotonic_ns()]
    for n in range(count):
        if ledger:
            await ctx.tool("echo", n)
        else:
            await ctx.checkpoint("iteration_end", snapshot)
        times.append(time.monotonic_ns())
    return times


@app.tool("echo")
async def echo(arguments: object) -> dict[str, object]:
    """Gives back what it got."""
    return {"echo": arguments}


@app.task("hold")
async def hold(ctx: TaskContext, log: str) -> None:
    """Write down that it runs; the first attempt then waits to be killed."""
    line = f"{ctx.task_id} {ctx.attempt} {time.monotonic_ns()} {os.getpid()}\n"
    with Path(log).open("a") as file:  # noqa: ASYNC230  one line, at once
        file.write(line)
    if ctx.attempt == 1:
        await asyncio.Event().wait()
