"""A handler whose program differs from process to process: its steps are STEPS, a checkpoint is after `a`."""

import os
from typing import Any

from tests.crash.fault import fault
from tests.worker.app import effect

from agentos.core.app import App, TaskContext, ToolCall

app = App()
STEPS = os.environ.get("STEPS", "").split()


@app.tool("do")
async def do(call: ToolCall, arguments: str) -> str:
    effect("did", arguments)
    fault(arguments, "after")
    return arguments


async def steps(ctx: TaskContext) -> list[Any]:
    state = ctx.snapshot or []
    effect("from", *state)
    for step in STEPS[len(state) :]:
        state.append((await ctx.tool("do", step))["result"])
        if step == "a":
            await ctx.checkpoint("iteration_end", state)
    return list(state)


app.task("asks")(steps)
app.task("goes_on", on_change="continue")(steps)
