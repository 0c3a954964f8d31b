"""Handlers that the containers of the tests run. What they do to the world is a file in /effects."""

import asyncio
from pathlib import Path
from typing import Any

from agentos.core.app import App, TaskContext, ToolCall

app = App()
EFFECTS = Path("/effects")


@app.tool("append")
async def append(call: ToolCall, line: Any) -> Any:
    with (EFFECTS / "log").open("a") as file:
        file.write(f"{call.idempotency_key} {line}\n")
    return line


@app.task("steps")
async def steps(ctx: TaskContext, name: str, n: int, pause_s: float = 0.05) -> list[str]:
    """`n` recorded effects, a checkpoint after each."""
    done: list[str] = ctx.snapshot or []
    for step in range(len(done), n):
        await ctx.tool("append", f"{name} {step}")
        done.append(f"{name} {step}")
        await ctx.checkpoint("iteration_end", done)
        await asyncio.sleep(pause_s)
    return done


@app.task("quick")
async def quick(_ctx: TaskContext, n: int) -> int:
    return n


@app.task("held")
async def held(ctx: TaskContext) -> str:
    """Notes that it began, and waits for the file `go` between a checkpoint and its end."""
    if ctx.snapshot is None:
        await ctx.tool("append", "began")
        await ctx.checkpoint("iteration_end", {"began": True})
        (EFFECTS / "waiting").touch()
    while not (EFFECTS / "go").exists():
        await asyncio.sleep(0.02)
        await ctx.checkpoint("iteration_end", {"began": True})
    return "done"
