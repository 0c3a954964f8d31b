"""Items and checkpoints."""

from pathlib import Path

from agentos.core.app import App, TaskContext
from agentos.core.evidence import Evidence, EvidenceType
from agentos.store.schema import schema
from agentos.testing.crashtest.scenario import Effects, Scenario

BESIDE = frozenset({"before:complete", "during:complete", "after:complete"})
"""The first added item runs beside the end of the one that added it: that process may die in its effect."""
COUNTED = "SELECT count(*) FROM {} WHERE task_id = $1"


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


def _large(effects: Effects) -> App:
    app = App()

    @app.task("large")
    async def large(ctx: TaskContext) -> int:
        done: list[str] = ctx.snapshot or []
        for n in range(len(done), 2):
            done.append(str(n) * 100_000)
            await ctx.checkpoint("iteration_end", done)
        return len(done)

    return app


def _many(effects: Effects) -> App:
    app = App()
    app.tool("effect", on_doubt="fail")(effects.do)

    @app.task("many")
    async def many(ctx: TaskContext) -> None:
        await ctx.tool("effect", "planned")
        await ctx.expand([{"key": str(n), "kind": "small"} for n in range(40)])

    @app.task("small")
    async def small(ctx: TaskContext) -> str | None:
        return ctx.key

    return app


def _telling(effects: Effects) -> App:
    app = App()

    @app.task("telling")
    async def telling(ctx: TaskContext) -> str:
        ctx.log("begun")
        await ctx.checkpoint("iteration_end", 1)
        return "told"

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


def _verdict(effects: Effects) -> App:
    app = App()
    kept, gone = (effects.file.with_suffix(f".{name}") for name in ("kept", "gone"))

    @app.evidence("crashtest_is_there")
    def is_there(evidence: Evidence) -> tuple[bool, str]:
        return Path(evidence.expected["path"]).exists(), "looked"

    @app.task("verdict")
    async def verdict(ctx: TaskContext) -> str:
        if ctx.snapshot is None:
            kept.touch()
            for path in (kept, gone):
                claim = Evidence("crashtest_is_there", path.suffix, {"path": str(path)})
                await ctx.checkpoint("iteration_end", path.suffix, evidence=[claim])
            raise ValueError("again, from what holds")
        return str(ctx.snapshot)

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


def _transaction(effects: Effects) -> App:
    app = App()
    table = f"{schema()}.crashtest_rows"

    @app.task("transaction")
    async def transaction(ctx: TaskContext) -> int:
        if ctx.snapshot is None:
            async with ctx.transaction() as conn:
                await conn.execute(f"CREATE TABLE IF NOT EXISTS {table} (task_id text)")
                await conn.execute(f"INSERT INTO {table} VALUES ($1)", ctx.task_id)  # noqa: S608  a name of our own
                await ctx.checkpoint("state_transition", {"written": True})
        async with ctx.transaction() as conn:
            counted: int = await conn.fetchval(COUNTED.format(table), ctx.task_id)
        return counted

    return app


SCENARIOS = (
    Scenario(
        "item", "submit, claim, complete", _item, ("claim", "complete"), ("submit",), result="done",
    ),
    Scenario(
        "checkpoint", "three checkpoints, gapless", _checkpoint, ("commit_checkpoint",), result=[0, 1, 2],
    ),
    Scenario("large", "a snapshot in parts", _large, ("commit_parted",), result=2),
    Scenario(
        "many", "completions and claims in one statement", _many, ("turn",), once=("planned",),
        result={"1": None, **{str(n): str(n) for n in range(40)}},
    ),
    Scenario("telling", "what a handler tells", _telling, ("tell",), result="told"),
    Scenario(
        "reclaim", "what a lost worker held is taken back", _item, ("reclaim",), first="after:claim", kind="item",
        result="done",
    ),
    Scenario(
        "evidence", "a checkpoint with evidence", _evidence, ("commit_checkpoint",), result="made",
    ),
    Scenario(
        "verdict", "resumed from the newest that holds, each check kept", _verdict,
        ("keep_verdict", "supersede", "note_resume"), result=".kept",
    ),
    Scenario(
        "expand", "items added by a handler", _expand, ("expand", "complete"), once=("first", "last"),
        repeats={"first": BESIDE},
        result={"1": None, "first": "first", "last": "last"},
    ),
    Scenario(
        "failure", "an attempt that raises is tried again", _failure, ("fail",), result="done",
    ),
    Scenario(
        "transaction", "own rows and a checkpoint, one commit", _transaction,
        ("hold_fence", "commit_checkpoint", "transaction_commit"), result=1,
    ),
)  # fmt: skip
