"""Going back to a checkpoint with real handlers: what replays, what runs again, and kill -9 at its commit."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, BlockingContext, TaskContext, ToolCall
from agentos.store import run
from agentos.store.errors import InvalidInput
from agentos.testing import CRASH_TIMES, Pool
from agentos.testing.fork import in_child

STEPS = ["1", "2", "3"]


def told(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def writing(world: Path) -> App:
    """An app without handlers, whose tool adds a line to the world."""
    app = App()

    @app.tool("write")
    def write(call: ToolCall, arguments: Any) -> dict[str, Any]:
        with world.open("a") as file:
            file.write(f"{arguments} {call.idempotency_key[:8]}\n")
        return {"wrote": arguments}

    return app


def stepping(world: Path) -> App:
    """Three steps, each an effect (a line) and a checkpoint after it; the same in an async and a blocking handler."""
    app = writing(world)

    @app.task("steps")
    async def steps(ctx: TaskContext) -> list[Any]:
        state = ctx.snapshot or []
        for step in STEPS[len(state) :]:
            state.append((await ctx.tool("write", step))["wrote"])
            await ctx.checkpoint("iteration_end", state)
        return state

    @app.task("blocking-steps")
    def blocking_steps(ctx: BlockingContext) -> list[Any]:
        state = ctx.snapshot or []
        for step in STEPS[len(state) :]:
            state.append(ctx.tool("write", step)["wrote"])
            ctx.checkpoint("iteration_end", state)
        return state

    return app


@pytest.mark.parametrize("kind", ["steps", "blocking-steps"])
def test_by_default_nothing_is_done_twice(agentos_pool: Pool, tmp_path: Path, kind: str) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit(kind)
    agentos_pool.drain(app)
    dry = handle.rewind(1, dry_run=True)
    assert [(each.call.arguments, each.becomes) for each in dry.calls] == [("2", "replayed"), ("3", "replayed")]
    assert (dry.done, dry.checkpoints, handle.status()) == (False, (2, 3), "completed")
    assert handle.rewind(1, by="alice").done
    agentos_pool.drain(app)
    assert handle.result(0) == STEPS
    assert [line.split()[0] for line in told(tmp_path / "world")] == STEPS


@pytest.mark.parametrize("kind", ["steps", "blocking-steps"])
def test_what_is_executed_again_has_another_key(agentos_pool: Pool, tmp_path: Path, kind: str) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit(kind)
    agentos_pool.drain(app)
    asyncio.run(handle.arewind(2, re_execute=["write"]))
    agentos_pool.drain(app)
    assert handle.result(0) == STEPS
    lines = told(tmp_path / "world")
    assert [line.split()[0] for line in lines] == [*STEPS, "3"]
    assert len(set(lines)) == 4


def test_a_stub_answers_for_what_was_recorded(agentos_pool: Pool, tmp_path: Path) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit("steps")
    agentos_pool.drain(app)
    assert [each.becomes for each in handle.rewind(0, stub={"write": {"wrote": "nothing"}}).calls] == ["stubbed"] * 3
    agentos_pool.drain(app)
    assert handle.result(0) == ["nothing"] * 3
    assert len(told(tmp_path / "world")) == 3


def test_a_program_that_changed_goes_on_after_a_rewind(agentos_pool: Pool, tmp_path: Path) -> None:
    world = tmp_path / "world"
    handle = stepping(world).submit("steps")
    agentos_pool.drain(stepping(world))
    handle.rewind(1)
    changed = writing(world)

    @changed.task("steps")
    async def steps(ctx: TaskContext) -> list[Any]:
        return [*ctx.snapshot, (await ctx.tool("write", "new"))["wrote"], (await ctx.tool("write", "2"))["wrote"]]

    agentos_pool.drain(changed)
    assert handle.result(0) == ["1", "new", "2"]
    assert [line.split()[0] for line in told(world)] == [*STEPS, "new"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"re_execute": ["wirte"]}, "called were: write"),
        ({"replay": ["write"], "stub": {"write": 1}}, "more than once"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(
    agentos_pool: Pool, tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit("steps")
    agentos_pool.drain(app)
    with pytest.raises(InvalidInput, match=said):
        handle.rewind(0, **asked)
    assert handle.status() == "completed"


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_killed_around_its_commit_a_rewind_is_whole_or_nothing(agentos_pool: Pool, tmp_path: Path, when: str) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit("steps")
    agentos_pool.drain(app)

    def die(tell: Callable[[str], None]) -> None:
        from agentos.store import connect  # noqa: PLC0415  replaced in the child only

        really = run.run_call

        def fatal(conn: Any, call: Any) -> Any:
            if "agentos.rewind_task(" not in call.sql:
                return really(conn, call)
            if when == "during":
                threading.Thread(target=really, args=(conn, call), daemon=True).start()
            elif when == "after":
                really(conn, call)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("it is dead")

        connect.run_call = fatal  # type: ignore[attr-defined]
        stepping(tmp_path / "world").handle(handle.task_id).rewind(2, re_execute=["write"])
        tell("alive")

    assert in_child(die, timeout_s=60).killed
    (superseded,) = agentos_pool.rows("SELECT count(*) FROM agentos.checkpoints WHERE superseded_at IS NOT NULL")[0]
    (aside,) = agentos_pool.rows("SELECT count(*) FROM agentos.tool_ledger WHERE state = 'failed'")[0]
    agentos_pool.drain(app)
    assert handle.result(0) == STEPS
    again = ["3"] * len(told(tmp_path / "world")[3:])
    assert [line.split()[0] for line in told(tmp_path / "world")] == STEPS + again
    if when != "during":  # the server may have committed it a moment later
        assert superseded == aside == len(again) == (1 if when == "after" else 0)
    assert len(again) <= 1


def test_the_example_of_the_document_does_what_it_says(agentos_pool: Pool) -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewind.md").read_text("utf-8")
    names: dict[str, Any] = {"__name__": "document"}
    exec(page.split("```python\n")[1].split("```")[0], names)  # noqa: S102  our own page
    app: App = names["app"]
    handle = app.submit("steps")
    agentos_pool.drain(app)
    assert [each.call.arguments for each in handle.rewind(1, dry_run=True).calls] == ["2", "3"]
    handle.rewind(1)
    agentos_pool.drain(app)
    assert handle.result(0) == STEPS
