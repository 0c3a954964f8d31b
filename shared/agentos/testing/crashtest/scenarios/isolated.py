"""A handler in a process of its own, which dies with its worker."""

from typing import Any

from agentos.core.app import App, TaskContext
from agentos.testing.crashtest.scenario import Effects, Scenario
from agentos.testing.crashtest.scenarios.tools import UNRECORDED

app = App()
"""What the process imports. The tools run in the worker."""


@app.task("isolated", isolation="process")
async def isolated(ctx: TaskContext) -> list[dict[str, Any]]:
    """Two effects and a checkpoint after each."""
    done: list[dict[str, Any]] = ctx.snapshot or []
    for name in ("a", "b")[len(done) :]:
        done.append(await ctx.tool("effect", name))
        await ctx.checkpoint("iteration_end", done)
    return done


def _isolated(effects: Effects) -> App:
    made = App()
    made.handlers.update(app.handlers)
    made.tool("effect", on_doubt="retry")(effects.do)
    return made


SCENARIOS = (
    Scenario(
        "isolated", 'a handler with isolation="process"', _isolated,
        ("ledger_finish", "commit_checkpoint"),  # each cell starts two processes and more
        once=("a", "b"), repeats={"a": UNRECORDED}, result=[{"result": "a"}, {"result": "b"}],
    ),
)  # fmt: skip
