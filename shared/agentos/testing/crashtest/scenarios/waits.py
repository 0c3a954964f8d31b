"""The waits, one scenario each: whoever dies, the item is in one place, no wake-up is lost, no child is made twice."""

from contextlib import suppress
from typing import Any

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.store.errors import ChildFailed, NonRetryable, NotRetryable, TaskFinished
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
    async def signal(ctx: TaskContext) -> Any:
        return await ctx.wait_for("paid")

    return app


def _timeout(effects: Effects) -> App:
    app = App()

    @app.task("timeout")
    async def timeout(ctx: TaskContext) -> Any:
        try:
            return await ctx.wait_for("never", timeout_s=600)
        except TimeoutError:
            return "gave up"

    return app


def _approval(effects: Effects) -> App:
    app = App()

    @app.task("approval")
    async def approval(ctx: TaskContext) -> str | None:
        answer = await ctx.approval("publish?", shown={"pages": 3}, options=["now", "later"])
        return answer.option

    return app


def _children(effects: Effects) -> App:
    app = App()

    @app.task("children")
    async def children(ctx: TaskContext) -> list[Any]:
        return await ctx.gather(*[await ctx.spawn("child", {"n": n}) for n in range(2)])

    @app.task("child")
    async def child(ctx: TaskContext, n: int) -> int:
        return n

    return app


def _failing(effects: Effects) -> App:
    app = App()

    @app.task("fail_fast")
    async def parent(ctx: TaskContext) -> str:
        children = [await ctx.spawn("child", {"how": how}) for how in ("waits", "sleeps", "fails")]
        try:
            await ctx.gather(*children)
        except ChildFailed as exc:
            return "it was broken" if "it is broken" in str(exc) else str(exc)
        return "nothing failed"

    @app.task("child")
    async def child(ctx: TaskContext, how: str) -> None:
        if how == "fails":
            raise NonRetryable("it is broken")
        if how == "waits":
            await ctx.wait_for("never")
        await ctx.sleep(360_000)

    return app


def _paused(effects: Effects) -> App:
    app = App()

    @app.task("pause")
    async def paused(ctx: TaskContext) -> Any:
        await ctx.tool("first", 1, execute=lambda _call, _arguments: effects.do("first"))
        told = await ctx.wait_for("paid")
        await ctx.tool("second", 2, execute=lambda _call, _arguments: effects.do("second"))
        return told

    return app


def _pause(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.pause()


def _resume(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    handle.resume()


def _send(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    with suppress(TaskFinished):
        handle.signal("paid", {"amount": 12})


def _answer(_app: App, handle: TaskHandle, _effects: Effects) -> None:
    with suppress(NotRetryable):  # the one that died had got so far
        handle.answer(by="ana", option="later")


SCENARIOS = (
    Scenario("sleep", "a sleep costs a row", _sleep, ("wait", "promote"), result="awake"),
    Scenario(
        "signal", "a wait for a signal", _signal, ("wait",), ("signal",), acts=(_send,), result={"amount": 12},
    ),
    Scenario("timeout", "a wait that times out", _timeout, ("wait", "promote"), result="gave up"),
    Scenario(
        "approval", "a person's answer", _approval, ("ask",), ("answer",), acts=(_answer, _answer), result="later",
    ),
    Scenario(
        "pause", "a pause, a signal while it lasts, its end", _paused, ("park_paused",),
        ("pause_task", "resume_task"), acts=(_pause, _send, _resume), once=("first", "second"),
        result={"amount": 12},
    ),
    Scenario("children", "child tasks, gathered", _children, ("spawn", "wait", "complete"), result=[0, 1]),
    Scenario(
        "fail_fast", "of gathered children one fails, the others are cancelled", _failing, ("wait", "fail", "complete"),
        result="it was broken",
    ),
)  # fmt: skip
