"""A task that goes on while a fork of it is made, and waits for what the fork comes to."""

from contextlib import suppress
from typing import Any

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.store.errors import TaskExists, TaskFinished
from agentos.testing.crashtest.scenario import Effects, Scenario


def _fork(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="fail")(effects.do)

    @app.task("fork")
    async def fork(ctx: TaskContext) -> Any:
        if ctx.snapshot is None:
            await ctx.tool("effect", "before")
            await ctx.checkpoint("iteration_end", "begun")
        await ctx.tool("effect", "after")
        return await ctx.wait_for("go")

    return app


def _make(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    """Under one id, so that whoever does it again after a death makes no second one."""
    with suppress(TaskExists):
        handle.fork(1, task_id=f"{handle.task_id}-fork")


def _release(app: App, handle: TaskHandle, _effects: Effects) -> None:
    """The fork first; then the old task gets what came of it."""
    fork = app.handle(f"{handle.task_id}-fork")
    with suppress(TaskFinished):
        fork.signal("go", "forked")
    if fork.status() == "completed":
        handle.signal("go", fork.result(0))


SCENARIOS = (
    Scenario(
        "fork", "a new task from a checkpoint of a living one", _fork, ("claim", "complete"), ("fork_task",),
        acts=(_make, _release, _release), once=("before", "after"), result="forked",
    ),
)  # fmt: skip
