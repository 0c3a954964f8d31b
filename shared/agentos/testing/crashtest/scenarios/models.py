"""Model calls."""

from typing import Any

from agentos.core.app import App, TaskContext
from agentos.testing.crashtest.scenario import Effects, Scenario

UNPAID = frozenset({"before:cache_finish", "during:cache_finish"})
"""The same between a model's answer and its record."""


def _model(effects: Effects) -> App:
    app = App()

    @app.task("model")
    async def model(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt="Plan: tea", model="m", generate=lambda _prompt: effects.do("paid"))

    return app


def _uncached(effects: Effects) -> App:
    app = App()

    @app.task("model_uncached")
    async def model(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt="tea", model="m", scope="off", generate=lambda _prompt: effects.do("paid"))

    return app


def _fails(effects: Effects) -> App:
    app = App()

    def generate(_prompt: Any) -> str:
        if effects.counted()["tried"] < 1:
            effects.do("tried")
            raise ConnectionError("the model is away")
        return effects.do("paid")

    @app.task("model_fails")
    async def model(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt="tea", model="m", generate=generate)

    return app


SCENARIOS = (
    Scenario(
        "model", "a model's output", _model, ("cache_begin", "cache_finish"), once=("paid",), repeats={"paid": UNPAID},
        result="paid",
    ),
    Scenario(
        "model_uncached", "an output that is paid and not kept", _uncached, ("cache_discard",), once=("paid",),
        repeats={"paid": frozenset({"before:cache_discard", "during:cache_discard", "after:cache_discard"})},
        result="paid",
    ),
    Scenario("model_fails", "a model that fails", _fails, ("cache_abandon",), once=("tried", "paid"), result="paid"),
)  # fmt: skip
