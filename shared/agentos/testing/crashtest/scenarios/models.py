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


SCENARIOS = (
    Scenario(
        "model", "a model's output", _model, ("cache_begin", "cache_finish"), once=("paid",), repeats={"paid": UNPAID},
        result="paid",
    ),
)  # fmt: skip
