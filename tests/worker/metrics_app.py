"""Handlers for the tests of metrics: each does a little of what is counted."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from agentos.core.app import App, TaskContext
from agentos.core.llm import Completion

app = App()
LOG = Path(os.environ.get("EFFECTS", os.devnull))


def note(text: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{text}\n")


@app.tool("lookup")
async def lookup(word: str) -> dict[str, Any]:
    return {"word": word}


async def answer(_prompt: Any) -> Completion:
    return Completion("an answer", "m", prompt_tokens=7, completion_tokens=5, finish_reason="stop")


@app.task("works")
async def works(ctx: TaskContext) -> str:
    await ctx.tool("lookup", {"word": "lease"})
    for _ in range(2):
        await ctx.llm("ask", prompt="What?", model="m", generate=answer)
    await ctx.checkpoint("iteration_end", {"at": 1})
    await asyncio.sleep(0.05)
    return "done"


@app.task("fails_once")
async def fails_once(ctx: TaskContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("once")
    return ctx.attempt


@app.task("holds")
async def holds(ctx: TaskContext) -> int:
    note(f"holding {ctx.attempt}")
    while not LOG.with_name("go").exists():  # noqa: ASYNC110  a file of another process
        await asyncio.sleep(0.02)
    return ctx.attempt


@app.task("imported")
async def imported(_ctx: TaskContext) -> bool:
    return "prometheus_client" in sys.modules
