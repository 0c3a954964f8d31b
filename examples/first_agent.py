"""Your first agent: it asks a model three questions and writes the answers down, once each, whatever happens.

In this folder:
    agentos up --app first_agent:app      # database, coordinator, worker; kill -9 the worker while it works
    python first_agent.py                 # in another terminal
"""

import shlex
from typing import Any

from agentos.core.app import App, TaskContext

app = App()


@app.task("research")
async def research(ctx: TaskContext, topic: str) -> dict[str, Any]:
    answers: list[str] = ctx.snapshot or []  # None on the first run
    for question in ("What is it?", "Who needs it?", "What goes wrong?")[len(answers) :]:
        answer = await ctx.llm("answer", prompt=f"{topic}: {question}")  # paid once
        await ctx.tool("bash", f"echo {shlex.quote(answer)} >> answers.txt")  # done once
        answers.append(answer)
        await ctx.checkpoint("iteration_end", answers)  # a killed worker's successor goes on from here
    return {"topic": topic, "answers": answers}


if __name__ == "__main__":
    print(app.submit("research", {"topic": "SKIP LOCKED"}).result(timeout=60))
