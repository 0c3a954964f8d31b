"""What people and time do to a task: cancel and retry, rewind, a higher budget, a deadline."""

from contextlib import suppress
from typing import Any

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.core.budget import Budget
from agentos.store.calls import budgets, tasks
from agentos.store.errors import NotRetryable, TaskFinished
from agentos.testing.crashtest.scenario import Effects, Scenario


def _waiting(kind: str) -> Any:
    def make(effects: Effects) -> App:
        app = App()
        app.tool("effect", on_doubt="fail")(effects.do)

        @app.task(kind)
        async def waiting(ctx: TaskContext) -> Any:
            if ctx.snapshot is None:
                await ctx.tool("effect", "first")
                await ctx.checkpoint("iteration_end", "done")
            await ctx.tool("effect", "second")
            return await ctx.wait_for("go")

        return app

    return make


def _spending(effects: Effects) -> App:
    app = App()

    @app.task("budget", budget=Budget(max_calls=1))
    async def spending(ctx: TaskContext) -> str:
        for name in ("one", "two"):
            await ctx.llm("plan", prompt=name, model="m", generate=effects.do)
        return "paid"

    return app


def _late(_effects: Effects) -> App:
    app = App()

    @app.task("deadline")
    async def late(ctx: TaskContext) -> None:
        """It never comes to this: its delay is longer than its deadline."""

    return app


def _cancel_and_retry(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.cancel()
    with suppress(NotRetryable):  # the one that died had got so far
        handle.db.run(tasks.retry_task(handle.task_id))


def _rewind(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.rewind(1)


def _go(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    with suppress(TaskFinished):
        handle.signal("go", "gone")


def _raise(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.db.run(budgets.raise_budget(handle.task_id, budgets.Limits(calls=1)))


SCENARIOS = (
    Scenario(
        "cancel", "a cancel, and a retry after it", _waiting("cancel"), (), ("cancel_task", "retry_task"),
        acts=(_cancel_and_retry, _go), once=("first", "second"), result="gone",
    ),
    Scenario(
        "rewind", "back to a checkpoint", _waiting("rewind"), (), ("rewind_task",), acts=(_rewind, _go),
        once=("first", "second"), result="gone",
    ),
    Scenario(
        "budget", "parked by its budget, and a higher limit", _spending, (), ("raise_budget",), acts=(_raise,),
        once=("one", "two"), result="paid",
    ),
    Scenario(
        "deadline", "a deadline that has passed", _late, ("expire_tasks",), status="failed",
        submit={"deadline_s": 60, "delay_s": 3600},
    ),
)  # fmt: skip
