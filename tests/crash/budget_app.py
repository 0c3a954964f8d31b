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
