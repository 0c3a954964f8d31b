"""Waits: for a time, a signal, a person."""

from contextlib import suppress

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.store.errors import NotRetryable
from agentos.testing.crashtest.scenario import Effects, Scenario


def _sleep(effects: Effects) -> App:
    app = App()

    @app.task("sleep")
    async def sleep(ctx: TaskContext) -> str:
        await ctx.sleep(3600)
        return "awake"

    return app


def _signal(effects: Effects) -> App:
    app = App()

    @app.task("signal")
    async def signal(ctx: TaskContext) -> int:
        payload: dict[str, int] = await ctx.wait_for("go")
        return payload["n"]

    return app


def _send(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.signal("go", {"n": 1})


def _approval(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="retry")(effects.do)

    @app.task("approval")
    async def approval(ctx: TaskContext) -> str:
        await ctx.approval("Publish?", shown={"version": 1})
        await ctx.tool("effect", "published")
        return "published"

    return app


def _approve(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    if handle.questions():  # the one that died may have answered
        with suppress(NotRetryable):  # or does just now: its statement was on its way when it died
            handle.answer(by="crashtest")


SCENARIOS = (
    Scenario("sleep", "ctx.sleep", _sleep, ("wait", "promote"), result="awake"),
    Scenario(
        "signal", "ctx.wait_for", _signal, ("wait",), ("signal",), acts=(_send,), result=1,
    ),
    Scenario(
        "approval", "ctx.approval", _approval, ("ask",), ("answer",), acts=(_approve,), once=("published",),
        result="published",
    ),
)  # fmt: skip
