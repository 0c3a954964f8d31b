"""A handler that makes other calls than the recorded ones: shown and asked about, never silently wrong."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.store.errors import AnswerRefused, TaskFailed
from agentos.testing import Pool, crash_at


class Programs:
    """Versions of one handler, each a list of steps to call one after the other."""

    def __init__(self, log: Path, **declared: Any) -> None:
        self._log = log
        self._declared = declared

    def app(self, *steps: Any, blocking: bool = False, together: bool = False, checkpoint_first: bool = False) -> App:
        app = App()

        @app.tool("do", on_doubt="retry")
        async def do(step: Any) -> Any:
            with self._log.open("a") as file:
                file.write(f"{step}\n")
            if step == "broken":
                raise ValueError("it broke")
            return {"did": step}

        if blocking:

            @app.task("work", **self._declared)
            def blocking_work(ctx: BlockingContext) -> Any:
                return [ctx.tool("do", step)["did"] for step in steps]
        else:

            @app.task("work", **self._declared)
            async def work(ctx: TaskContext) -> Any:
                if checkpoint_first and ctx.snapshot is None:
                    await ctx.checkpoint("iteration_start", {})
                if together:
                    return [each["did"] for each in await asyncio.gather(*(ctx.tool("do", step) for step in steps))]
                return [(await ctx.tool("do", step))["did"] for step in steps]

        return app

    @property
    def done(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "log")


def die_after(pool: Pool, app: App, calls: int) -> None:
    with crash_at("after:ledger_finish", nth=calls):
        pool.drain(app)


@pytest.mark.parametrize("blocking", [False, True])
def test_a_changed_program_is_shown_beside_its_record_and_runs_on_when_a_person_says_so(
    agentos_pool: Pool, programs: Programs, blocking: bool
) -> None:
    handle = (old := programs.app("a", "b", "c", blocking=blocking)).submit("work")
    die_after(agentos_pool, old, 2)
    new = programs.app("a", "x", "c", blocking=blocking)
    agentos_pool.drain(new)
    assert handle.status() == "waiting"
    (doubt,) = handle.doubts()
    assert doubt.sort == "program"
    assert doubt.message.splitlines()[1:] == [
        '  1. recorded do("a") finished', '- 2. recorded do("b") finished', '+ 2. asked    do("x")'
    ]  # fmt: skip
    assert doubt.shown == {"recorded": ['do("a")', 'do("b")'], "asked": 'do("x")', "position": 2}
    assert programs.done == ["a", "b"]
    with pytest.raises(AnswerRefused, match="is about a program, done does not answer it"):
        handle.resolve("done")
    assert handle.resolve("continue", by="alice").became == "ready"
    agentos_pool.drain(new)
    assert handle.result(0) == ["a", "x", "c"]
    assert programs.done == ["a", "b", "x", "c"]


def test_the_former_program_may_be_put_back_before_the_item_goes_on(agentos_pool: Pool, programs: Programs) -> None:
    handle = (old := programs.app("a", "b", "c")).submit("work")
    die_after(agentos_pool, old, 2)
    agentos_pool.drain(programs.app("x"))
    handle.resolve("continue")
    agentos_pool.drain(old)
    assert handle.result(0) == ["a", "b", "c"]
    assert programs.done == ["a", "b", "c"]


def test_a_person_may_fail_it(agentos_pool: Pool, programs: Programs) -> None:
    handle = (old := programs.app("a", "b")).submit("work")
    die_after(agentos_pool, old, 1)
    agentos_pool.drain(programs.app("x"))
    assert handle.resolve("fail", by="alice").became == "failed"
    with pytest.raises(TaskFailed, match="changed under its record"):
        handle.result(0)


def test_declared_to_fail_it_fails_once_and_is_not_tried_again(agentos_pool: Pool, tmp_path: Path) -> None:
    programs = Programs(tmp_path / "log", on_change="fail")
    handle = (old := programs.app("a", "b")).submit("work")
    die_after(agentos_pool, old, 1)
    agentos_pool.drain(programs.app("x"))
    assert handle.status() == "failed"
    assert programs.done == ["a"]
    assert handle.resolve("continue").became == "noted"
    agentos_pool.rows("SELECT agentos.retry_task(%s)", handle.task_id)
    agentos_pool.drain(programs.app("x"))
    assert handle.result(0) == ["x"]


def test_a_handler_may_declare_that_it_changes(agentos_pool: Pool, tmp_path: Path) -> None:
    programs = Programs(tmp_path / "log", on_change="continue")
    handle = (old := programs.app("a", "b")).submit("work")
    die_after(agentos_pool, old, 1)
    agentos_pool.drain(programs.app("x", "a"))
    assert handle.result(0) == ["x", "a"]
    assert programs.done == ["a", "x"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(["a", "b"], ["a", "b", "c"]), (["a", "b", "c"], ["b", "a", "c"])],
)
def test_what_only_adds_or_reorders_is_no_change(
    agentos_pool: Pool, programs: Programs, before: list[str], after: list[str]
) -> None:
    handle = (old := programs.app(*before)).submit("work")
    die_after(agentos_pool, old, 2)
    agentos_pool.drain(programs.app(*after))
    assert handle.result(0) == after
    assert sorted(programs.done) == sorted(after)


def test_calls_made_together_have_no_order_that_could_change(agentos_pool: Pool, programs: Programs) -> None:
    steps = ["a", "b", "c", "d"]
    handle = (old := programs.app(*steps, together=True)).submit("work")
    die_after(agentos_pool, old, 1)
    shuffled = ["e", *random.Random(3).sample(steps, 4)]
    agentos_pool.drain(programs.app(*shuffled, together=True))
    assert handle.result(0) == shuffled


def test_calls_before_a_checkpoint_are_not_held_against_those_after_it(agentos_pool: Pool, programs: Programs) -> None:
    handle = (old := programs.app("a", checkpoint_first=True)).submit("work")
    with crash_at("after:commit_checkpoint"):
        agentos_pool.drain(old)
    agentos_pool.drain(programs.app("x", checkpoint_first=True))
    assert handle.result(0) == ["x"]


def test_after_a_call_that_failed_before_and_now_does_not_other_calls_may_follow(
    agentos_pool: Pool, tmp_path: Path
) -> None:
    app, mended = App(), tmp_path / "mended"

    @app.tool("upload")
    def upload(_arguments: Any) -> str:
        if not mended.exists():
            raise ConnectionError("no route")
        return "uploaded"

    @app.tool("note", on_doubt="retry")
    def note(arguments: Any) -> Any:
        return arguments

    @app.task("work")
    async def work(ctx: TaskContext) -> Any:
        try:
            await ctx.tool("upload")
        except ConnectionError:
            await ctx.tool("note", "kept for later")
        return (await ctx.tool("note", f"done {mended.exists()}"))["result"]

    handle = app.submit("work")
    die_after(agentos_pool, app, 2)
    mended.touch()
    agentos_pool.drain(app)
    assert handle.result(0) == "done True"
