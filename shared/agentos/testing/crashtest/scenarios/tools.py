"""Tools: repeated, asked, and asked about."""

from contextlib import suppress
from typing import Any

from agentos.core.app import NOT_DONE, App, Done, TaskContext, TaskHandle
from agentos.store.errors import AnswerRefused
from agentos.testing.crashtest.scenario import Effects, Scenario

UNRECORDED = frozenset({"before:ledger_finish", "during:ledger_finish"})
"""Between an effect and its record nothing can know that it was done: `retry` says that it may be done again."""

RESUMED = frozenset(f"{when}:ledger_resume" for when in ("before", "during", "after"))
"""It was made by the worker that died before its record."""


def _tool_retry(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="retry")(effects.do)

    @app.task("tool_retry")
    async def tool_retry(ctx: TaskContext) -> int:
        for name in ("a", "b"):
            await ctx.tool("effect", name)
        return 2

    return app


def _tool_probe(effects: Effects) -> App:
    app = App()

    def probe(_call: Any, name: str) -> Any:
        return Done(name) if effects.counted()[name] else NOT_DONE

    app.tool("effect", on_doubt="probe", probe=probe)(effects.do)

    @app.task("tool_probe")
    async def tool_probe(ctx: TaskContext) -> int:
        for name in ("a", "b"):
            await ctx.tool("effect", name)
        return 2

    return app


def _tool_ask(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="ask")(effects.do)

    @app.task("tool_ask")
    async def tool_ask(ctx: TaskContext) -> int:
        for name in ("a", "b"):
            await ctx.tool("effect", name)
        return 2

    return app


def _resolve(_app: App, handle: TaskHandle, effects: Effects) -> None:
    """A person looks at the world, and says what happened there."""
    for doubt in handle.doubts():
        was_done = effects.counted()[doubt.arguments] > 0
        with suppress(AnswerRefused):  # what the one that died had sent came through just now
            handle.resolve("done" if was_done else "not_done", doubt.arguments if was_done else None, by="crashtest")


SCENARIOS = (
    Scenario(
        "tool_retry", "a tool that may be repeated", _tool_retry, ("ledger_begin", "ledger_finish"),
        once=("a", "b"), repeats={"a": UNRECORDED}, result=2,
    ),
    Scenario(
        "tool_resume", "a call in doubt that is begun again", _tool_retry, ("ledger_resume",), kind="tool_retry",
        first="before:ledger_finish", once=("a", "b"), repeats={"a": RESUMED}, result=2,
    ),
    Scenario(
        "tool_probe", "a tool that can be asked", _tool_probe, ("ledger_begin", "ledger_finish"),
        once=("a", "b"), result=2,
    ),
    Scenario(
        "tool_ask", "a tool in doubt asks a person", _tool_ask, ("ledger_begin", "ledger_finish"), acts=(_resolve,),
        once=("a", "b"), result=2,
    ),
    Scenario(
        "doubt", "the question and its answer", _tool_ask, ("ask_doubt",), ("resolve_doubt",), acts=(_resolve,),
        first="before:ledger_finish", kind="tool_ask", once=("a", "b"), result=2,
    ),
)  # fmt: skip
