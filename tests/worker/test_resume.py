"""What a handler finds when it is called again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Sweeping

from agentos.core.app import App, TaskContext, ToolCall
from agentos.core.evidence import Evidence, EvidenceType
from agentos.store.errors import TaskFailed
from agentos.testing import pool
from agentos.testing.crash import crash_at

Conn = psycopg.Connection[Any]
Again = ValueError("again, please")


def written(path: Path, text: str) -> list[Evidence]:
    path.write_text(text)
    return [Evidence(EvidenceType.ARTIFACT_EXISTS, f"{path.name} is there", {"path": str(path)})]


class Calls(list[str]):
    """A tool's calls; `tool` records one."""

    async def tool(self, call: ToolCall, arguments: Any) -> dict[str, Any]:
        self.append(f"{arguments} {'repair' if call.repair else 'first'}")
        return {"n": len(self)}


async def test_the_newest_checkpoint_whose_evidence_holds_is_resumed_and_newer_ones_are_superseded(
    database_dsn: str, conn: Conn, hurrying: Sweeping, tmp_path: Path
) -> None:
    app, seen = App(dsn=database_dsn), []

    @app.task("writer")
    async def writer(ctx: TaskContext) -> str:
        seen.append(ctx.snapshot)
        if ctx.attempt == 1:
            await ctx.checkpoint("iteration_end", "one", written(tmp_path / "a", "x"))
            await ctx.checkpoint("iteration_end", "two", written(tmp_path / "b", "x"))
            (tmp_path / "b").unlink()
            raise Again
        return "done"

    handle = app.submit("writer")
    async with serving(app, database_dsn):
        assert await outcome(handle) == "done"
    assert seen == [None, "one"]
    kept, superseded = conn.execute("SELECT superseded_reason FROM agentos.checkpoints ORDER BY sequence_number")
    assert kept == (None,)
    assert str(tmp_path / "b") in superseded[0]


async def test_a_handler_that_starts_over_although_it_was_given_a_snapshot_is_stopped_before_the_effect(
    database_dsn: str, hurrying: Sweeping
) -> None:
    app, calls = App(dsn=database_dsn), Calls()
    app.tool("charge")(calls.tool)

    @app.task("forgetful")
    async def forgetful(ctx: TaskContext) -> None:
        await ctx.tool("charge", {"eur": 5})
        await ctx.checkpoint("iteration_end", {})
        raise Again

    handle = app.submit("forgetful")
    async with serving(app, database_dsn):
        error = await outcome(handle)
    assert isinstance(error, TaskFailed)
    assert "was recorded 1 checkpoint(s) before the one this item resumed from" in str(error)
    assert calls == ["{'eur': 5} first"]


async def test_the_same_call_made_twice_on_purpose_is_two_calls_and_both_are_replayed(
    database_dsn: str, hurrying: Sweeping
) -> None:
    app, calls, answers = App(dsn=database_dsn), Calls(), []
    app.tool("beep")(calls.tool)

    @app.task("twice")
    async def twice(ctx: TaskContext) -> None:
        answers.append([(await ctx.tool("beep", "now"))["n"], (await ctx.tool("beep", "now"))["n"]])
        if ctx.attempt == 1:
            raise Again

    handle = app.submit("twice")
    async with serving(app, database_dsn):
        assert await outcome(handle) is None
    assert answers == [[1, 2], [1, 2]]
    assert calls == ["now first", "now first"]


@pytest.mark.parametrize("may_repeat", [True, False])
async def test_a_recorded_call_whose_product_is_gone_is_repaired_if_it_may_be_else_the_task_stops(
    database_dsn: str, conn: Conn, hurrying: Sweeping, tmp_path: Path, may_repeat: bool
) -> None:
    app, calls, product = App(dsn=database_dsn), Calls(), tmp_path / "product"

    @app.tool("make", produces=lambda _: [Evidence("artifact_exists", "made", {"path": str(product)})],
              safe_to_repeat=may_repeat)  # fmt: skip
    async def make(call: ToolCall, arguments: Any) -> dict[str, Any]:
        product.write_text("x")
        return await calls.tool(call, arguments)

    @app.task("maker")
    async def maker(ctx: TaskContext) -> int:
        made = await ctx.tool("make", "it")
        if ctx.attempt == 1:
            product.unlink()
            raise Again
        return int(made["n"])

    handle = app.submit("maker")
    async with serving(app, database_dsn):
        ended = await outcome(handle)
    if may_repeat:
        assert ended == 2
        assert calls == ["it first", "it repair"]
    else:
        assert isinstance(ended, TaskFailed)
        assert "cannot be replayed" in str(ended)
        assert calls == ["it first"]
    assert conn.execute("SELECT repairs FROM agentos.tool_ledger").fetchone() == (int(may_repeat),)


async def test_a_tool_result_that_cannot_be_stored_is_recorded_as_finished_and_the_tool_runs_once(
    database_dsn: str, conn: Conn, hurrying: Sweeping
) -> None:
    app, calls = App(dsn=database_dsn), Calls()
    errors: list[str] = []

    @app.tool("odd")
    async def odd(call: ToolCall, arguments: Any) -> dict[str, Any]:
        await calls.tool(call, arguments)
        return {"handle": object()}

    @app.task("asker")
    async def asker(ctx: TaskContext) -> None:
        try:
            await ctx.tool("odd", "x")
        except Exception as error:
            errors.append(str(error))
        if ctx.attempt == 1:
            raise Again

    handle = app.submit("asker")
    async with serving(app, database_dsn):
        assert await outcome(handle) is None
    assert calls == ["x first"]
    assert all("of type object" in error for error in errors)
    assert len(errors) == 2
    ((state, result),) = conn.execute("SELECT state, result FROM agentos.tool_ledger").fetchall()
    assert state == "finished"
    assert "of type object" in result["unstorable"]


async def test_a_result_of_a_handler_that_cannot_be_stored_fails_the_task_at_once(
    database_dsn: str, hurrying: Sweeping
) -> None:
    app, runs = App(dsn=database_dsn), []

    @app.task("odd")
    async def odd(ctx: TaskContext) -> object:
        runs.append(ctx.attempt)
        return object()

    handle = app.submit("odd")
    async with serving(app, database_dsn):
        assert "result of the handler cannot be stored" in str(await outcome(handle))
    assert runs == [1]


async def test_arguments_that_do_not_fit_the_handler_burn_no_retries(
    database_dsn: str, conn: Conn, hurrying: Sweeping
) -> None:
    app = App(dsn=database_dsn)
    sender: Callable[..., Any] = App(dsn=database_dsn).submit

    @app.task("typed")
    async def typed(ctx: TaskContext, depth: int) -> int:
        return depth

    handles = [sender("typed", {"depth": "deep"}), sender("typed", {}), sender("typed", {"depth": 1, "more": 2})]
    async with serving(app, database_dsn):
        errors = [str(await outcome(handle)) for handle in handles]
        assert await outcome(app.submit("typed", {"depth": 3})) == 3
    assert "argument 'depth'" in errors[0]
    assert all("does not fit" in error for error in errors[1:])
    assert conn.execute("SELECT DISTINCT attempt FROM agentos.outcomes").fetchall() == [(1,)]


async def test_every_check_is_kept_with_who_made_it_and_a_claim_of_the_apps_own_is_checked_like_any(
    database_dsn: str, hurrying: Sweeping, tmp_path: Path
) -> None:
    app, seen = App(dsn=database_dsn), list[Any]()

    @app.evidence("resume_says")
    async def says(evidence: Evidence) -> tuple[bool, str]:
        return bool(evidence.expected["holds"]), "asked"

    @app.task("writer")
    async def writer(ctx: TaskContext) -> str:
        seen.append(ctx.snapshot)
        if ctx.attempt == 1:
            for n, holds in enumerate([True, True, False, False], start=1):
                claims = [Evidence("resume_says", f"claim {n}", {"holds": holds})]
                if n == 3:
                    claims += written(tmp_path / "there", "x")
                await ctx.checkpoint("iteration_end", n, claims)
            raise Again
        return "done"

    handle = app.submit("writer")
    async with serving(app, database_dsn):
        assert await outcome(handle) == "done"
    assert seen == [None, 2]
    checks = await handle.averdicts()
    assert [(each.sequence_number, each.holds, each.reason) for each in checks] == [
        (4, False, "0 of 1 hold: claim 4: asked"), (3, False, "1 of 2 hold: claim 3: asked"), (2, True, "1 of 1 hold"),
    ]  # fmt: skip
    assert {(each.attempt, each.worker_id is None, each.item_id is None) for each in checks} == {(2, False, False)}
    assert [(claim.place, claim.evidence_type, claim.holds) for claim in checks[1].claims] == [
        (0, "resume_says", False), (1, "artifact_exists", True),
    ]  # fmt: skip


def test_a_worker_that_dies_amid_its_checks_decides_nothing(agentos_pool: pool.Pool, tmp_path: Path) -> None:
    app = App(dsn=agentos_pool.dsn)

    @app.task("writer")
    async def writer(ctx: TaskContext) -> str:
        if ctx.snapshot is None:
            await ctx.checkpoint("iteration_end", "one", written(tmp_path / "a", "x"))
            await ctx.checkpoint("iteration_end", "two", written(tmp_path / "b", "x"))
            (tmp_path / "b").unlink()
            raise Again
        return str(ctx.snapshot)

    handle = app.submit("writer")
    agentos_pool.drain(app)
    agentos_pool.clock.advance(60)
    with crash_at("after:keep_verdict"):
        assert agentos_pool.drain(app).killed
    assert [(each.sequence_number, each.holds) for each in handle.verdicts()] == [(2, False)]
    assert agentos_pool.rows("SELECT 1 FROM agentos.checkpoints WHERE superseded_at IS NOT NULL") == []
    agentos_pool.drain(app, skip_waits=True)
    assert handle.result(0) == "one"
    assert [(each.attempt, each.sequence_number) for each in handle.verdicts()] == [(2, 2), (3, 2), (3, 1)]
