"""A handler that spends: each call that is paid is a line in the log."""

from typing import Any

from tests.crash.fault import fault
from tests.worker.app import effect

from agentos.core.app import App, Completion, TaskContext

app = App()


@app.task("spends")
async def spends(ctx: TaskContext) -> list[str]:
    async def paid(prompt: Any) -> Completion:
        fault("generate", "before")
        effect("llm", prompt)
        return Completion(f"answer {prompt}", "m", 3, 2, "stop")

    return [await ctx.llm("plan", prompt=n, model="m", generate=paid) for n in range(3)]


@app.task("talks")
async def talks(ctx: TaskContext) -> list[int]:
    """A snapshot that is stored in parts from the first turn on."""
    said: list[str] = ctx.snapshot or []
    for turn in range(len(said), 3):
        said.append(f"{turn}" + "word " * 20_000)
        await ctx.checkpoint("iteration_end", said)
    return [len(each) for each in said]
