"""The primitives, one scenario each."""

from typing import Any

from agentos.core.app import App, TaskContext
from agentos.core.evidence import Evidence, EvidenceType
from agentos.testing.crashtest.scenario import Effects, Scenario

UNRECORDED = frozenset({"before:ledger_finish", "during:ledger_finish"})
"""Between an effect and its record nothing can know that it was done: `retry` says that it may be done again."""
UNPAID = frozenset({"before:cache_finish", "during:cache_finish"})
"""The same between a model's answer and its record."""


def _item(effects: Effects) -> App:
    app = App()

    @app.task("item")
    async def item(ctx: TaskContext) -> str:
        return "done"

    return app


def _checkpoint(effects: Effects) -> App:
    app = App()

    @app.task("checkpoint")
    async def checkpoint(ctx: TaskContext) -> list[int]:
        done: list[int] = ctx.snapshot or []
        for n in range(len(done), 3):
            done.append(n)
            await ctx.checkpoint("iteration_end", done)
        return done

    return app


def _evidence(effects: Effects) -> App:
    app = App()
    file = effects.file.with_suffix(".made")

    @app.task("evidence")
    async def evidence(ctx: TaskContext) -> str:
        if ctx.snapshot is None:
            file.write_text("made")
            held = Evidence(EvidenceType.ARTIFACT_EXISTS, "the file", {"path": str(file), "type": "file"})
            await ctx.checkpoint("state_transition", {"file": str(file)}, evidence=[held])
        return file.read_text()

    return app


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
    from agentos.core.app import NOT_DONE, Done  # noqa: PLC0415  beside what uses them

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


def _model(effects: Effects) -> App:
    app = App()

    @app.task("model")
    async def model(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt="Plan: tea", model="m", generate=lambda _prompt: effects.do("paid"))

    return app


def _expand(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="retry")(effects.do)

    @app.task("expand")
    async def expand(ctx: TaskContext) -> None:
        await ctx.expand([{"key": "first", "kind": "part"}, {"key": "last", "kind": "part", "depends_on": ["first"]}])

    @app.task("part")
    async def part(ctx: TaskContext) -> str | None:
        await ctx.tool("effect", ctx.key)
        return ctx.key

    return app


def _failure(effects: Effects) -> App:
    app = App()

    @app.task("failure")
    async def failure(ctx: TaskContext) -> str:
        if effects.counted()["tried"] < 2:
            effects.do("tried")
            raise ValueError("not yet")
        return "done"

    return app


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "item", "submit, claim, complete", _item, ("claim", "complete"), ("submit",), result="done",
    ),
    Scenario(
        "checkpoint", "three checkpoints, gapless", _checkpoint, ("commit_checkpoint",), result=[0, 1, 2],
    ),
    Scenario(
        "evidence", "a checkpoint with evidence", _evidence, ("commit_checkpoint",), result="made",
    ),
    Scenario(
        "tool_retry", "a tool that may be repeated", _tool_retry, ("ledger_begin", "ledger_finish"),
        once=("a", "b"), repeats={"a": UNRECORDED}, result=2,
    ),
    Scenario(
        "tool_probe", "a tool that can be asked", _tool_probe, ("ledger_begin", "ledger_finish"),
        once=("a", "b"), result=2,
    ),
    Scenario(
        "model", "a model's output", _model, ("cache_begin", "cache_finish"), once=("paid",), repeats={"paid": UNPAID},
        result="paid",
    ),
    Scenario(
        "expand", "items added by a handler", _expand, ("expand", "complete"), once=("first", "last"),
        result={"1": None, "first": "first", "last": "last"},
    ),
    Scenario(
        "failure", "an attempt that raises is tried again", _failure, ("fail",), result="done",
    ),
)  # fmt: skip
