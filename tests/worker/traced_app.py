"""An agent for the tests of traces: it asks its context for one of everything, and is killed in its first attempt."""

import asyncio
import os
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
    return Completion("an answer", "m-2", prompt_tokens=7, completion_tokens=5, finish_reason="stop")


@app.task("agent")
async def agent(ctx: TaskContext) -> str:
    await ctx.llm("plan", prompt="What?", model="m", generate=answer)
    await ctx.tool("lookup", {"word": "lease"}, key="one")
    if ctx.snapshot is None:
        await ctx.checkpoint("iteration_end", {"at": 1})
        note("holding")
        await asyncio.sleep(3600)
    ctx.log("going on")
    await ctx.wait_for("go")
    child = await ctx.spawn("child")
    await ctx.gather(child)
    return "done"


@app.task("child")
async def child(_ctx: TaskContext) -> int:
    return 1


@app.task("apart", isolation="process")
async def apart(ctx: TaskContext) -> int:
    """It has a span of its own, in its own process, and fails once."""
    from opentelemetry import trace  # noqa: PLC0415  it is there only where somebody traces

    with trace.get_tracer("mine").start_as_current_span("inside"):
        await ctx.tool("lookup", {"word": "fence"}, key="one")
    if ctx.attempt == 1:
        raise ValueError("once")
    return ctx.attempt
