"""Forks with real handlers: what replays, what runs again, whose model outputs; and kill -9 around its commit."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, TaskContext, TaskHandle, ToolCall
from agentos.store.errors import InvalidInput, TaskExists
from agentos.testing import CRASH_TIMES, Pool
from agentos.testing.crash import CrashPoint, Saboteur
from agentos.testing.fork import in_child

STEPS = ["1", "2", "3"]


def told(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def stepping(world: Path) -> App:
    """Three steps, each a paid thought, an effect (a line) and a checkpoint after it."""
    app = App()

    @app.tool("write")
    def write(call: ToolCall, arguments: Any) -> dict[str, Any]:
        with world.open("a") as file:
            file.write(f"{arguments} {call.idempotency_key[:8]}\n")
        return {"wrote": arguments}

    @app.task("steps")
    async def steps(ctx: TaskContext) -> list[Any]:
        state = ctx.snapshot or []
        for step in STEPS[len(state) :]:
            said = await ctx.llm("think", prompt=f"step {step}", model="m", generate=lambda prompt: paid(world, prompt))
            state.append((await ctx.tool("write", step))["wrote"] + said)
            await ctx.checkpoint("iteration_end", state)
        return state

    return app


def paid(world: Path, prompt: str) -> str:
    with world.with_suffix(".paid").open("a") as file:
        file.write(f"{prompt}\n")
    return "!"


def test_by_default_the_fork_does_and_pays_nothing_twice_and_the_old_task_stays(
    agentos_pool: Pool, tmp_path: Path
) -> None:
    world = tmp_path / "world"
    app = stepping(world)
    handle = app.submit("steps")
    agentos_pool.drain(app)
    dry = handle.fork(1, dry_run=True)
    effects = [(each.call.arguments, each.becomes) for each in dry.calls]
    assert effects == [("1", "carried_over"), ("2", "replayed"), ("3", "replayed")]
    assert (dry.done, agentos_pool.rows("SELECT count(*) FROM agentos.task_records")) == (False, [(1,)])
    made = asyncio.run(handle.afork(1, by="alice"))
    assert (made.done, made.from_task, made.from_seq) == (True, handle.task_id, 1)
    agentos_pool.drain(app)
    assert app.handle(made.task_id).result(0) == handle.result(0) == ["1!", "2!", "3!"]
    assert [line.split()[0] for line in told(world)] == STEPS
    assert len(told(world.with_suffix(".paid"))) == 3
    resumed = "SELECT data ->> 'sequence_number' FROM agentos.events WHERE event = 'resumed' AND task_id = '{}'"
    assert agentos_pool.rows(resumed.format(made.task_id)) == [("1",)]


def test_executed_again_has_a_new_key_and_new_outputs_are_paid_again(agentos_pool: Pool, tmp_path: Path) -> None:
    world = tmp_path / "world"
    app = stepping(world)
    handle = app.submit("steps")
    agentos_pool.drain(app)
    made = handle.fork(2, re_execute=["write"], new_outputs=True)
    assert [each.becomes for each in made.calls] == ["carried_over", "carried_over", "executed_again"]
    stubbed = handle.fork(0, stub={"write": {"wrote": "x"}}, task_id="mine")
    assert stubbed.task_id == "mine"
    with pytest.raises(TaskExists):
        handle.fork(0, task_id="mine")
    agentos_pool.drain(app)
    assert app.handle(made.task_id).result(0) == ["1!", "2!", "3!"]
    assert app.handle("mine").result(0) == ["x!"] * 3
    lines = told(world)
    assert [line.split()[0] for line in lines] == [*STEPS, "3"]
    assert len(set(lines)) == 4, "under another idempotency key"
    assert told(world.with_suffix(".paid"))[3:] == ["step 3"]


def test_a_fork_of_a_task_that_goes_on_shares_nothing_but_the_past(agentos_pool: Pool, tmp_path: Path) -> None:
    app = stepping(tmp_path / "world")

    @app.task("asking")
    async def asking(ctx: TaskContext) -> Any:
        if ctx.snapshot is None:
            await ctx.tool("write", "once")
            await ctx.checkpoint("approval_point", {"asked": True})
        return await ctx.wait_for("go")

    handle = app.submit("asking")
    agentos_pool.drain(app)
    assert handle.status() == "waiting"
    made = handle.fork(1)
    assert [(each.call.tool_name, each.becomes) for each in made.calls] == [
        ("write", "carried_over"), ("@signal", "waits_again"),
    ]  # fmt: skip
    agentos_pool.drain(app)
    fork = app.handle(made.task_id)
    handle.signal("go", "the old one")
    agentos_pool.drain(app)
    assert (handle.result(0), fork.status()) == ("the old one", "waiting")
    fork.signal("go", "the fork")
    agentos_pool.drain(app)
    assert fork.result(0) == "the fork"
    assert len(told(tmp_path / "world")) == 1


def test_an_answer_given_after_the_checkpoint_replays_unless_it_is_to_be_asked_again(agentos_pool: Pool) -> None:
    app = App()

    @app.task("asks")
    async def asks(ctx: TaskContext) -> str:
        return (await ctx.approval("publish?", shown={"pages": 3})).by

    handle = app.submit("asks")
    agentos_pool.drain(app)
    handle.answer(by="ann")
    agentos_pool.drain(app)
    replayed, again = handle.fork(0), handle.fork(0, re_execute=["@approval"])
    assert [each.becomes for each in (*replayed.calls, *again.calls)] == ["replayed", "waits_again"]
    agentos_pool.drain(app)
    assert app.handle(replayed.task_id).result(0) == "ann"
    assert app.handle(replayed.task_id).questions() == ()
    asked = app.handle(again.task_id)
    assert [each.question for each in asked.questions()] == ["publish?"]
    asked.answer(by="bob")
    agentos_pool.drain(app)
    assert asked.result(0) == "bob"


def test_children_that_have_ended_go_along_and_a_cancel_of_the_fork_does_not_reach_them(agentos_pool: Pool) -> None:
    app = App()

    @app.task("parent")
    async def parent(ctx: TaskContext) -> list[Any]:
        children = [await ctx.spawn("child", {"n": n}) for n in range(2)]
        gathered = await ctx.gather(*children)
        await ctx.wait_for("go")
        return gathered

    @app.task("child")
    async def child(ctx: TaskContext, n: int) -> int:
        return n

    handle = app.submit("parent")
    agentos_pool.drain(app)
    made = [app.handle(handle.fork(0, re_execute=again).task_id) for again in ((), ["@spawn"])]
    agentos_pool.drain(app)
    assert agentos_pool.rows("SELECT count(*) FROM agentos.task_heads WHERE parent_task IS NOT NULL") == [(4,)]
    made[0].cancel()
    made[1].signal("go")
    handle.signal("go")
    agentos_pool.drain(app)
    assert (made[1].result(0), handle.result(0), made[0].status()) == ([0, 1], [0, 1], "cancelled")


def test_a_choice_that_means_nothing_is_refused(agentos_pool: Pool, tmp_path: Path) -> None:
    app = stepping(tmp_path / "world")
    handle = app.submit("steps")
    agentos_pool.drain(app)
    with pytest.raises(InvalidInput, match="called were: none"):
        handle.fork(3, re_execute=["write"])
    assert agentos_pool.rows("SELECT count(*) FROM agentos.task_records") == [(1,)]


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_killed_around_its_commit_a_fork_is_whole_or_not_there(agentos_pool: Pool, tmp_path: Path, when: str) -> None:
    world = tmp_path / "world"
    app = stepping(world)
    handle = app.submit("steps")
    agentos_pool.drain(app)

    def die(tell: Callable[[str], None]) -> None:
        Saboteur(CrashPoint(when, "fork_task"), tell).install()
        mine = stepping(world)
        TaskHandle(handle.task_id, mine._database()).fork(2, task_id="fork", re_execute=["write"])

    assert in_child(die, timeout_s=60).killed
    try:
        handle.fork(2, task_id="fork", re_execute=["write"])
    except TaskExists:
        assert when != "before"
    else:
        assert when != "after"
    agentos_pool.drain(app)
    assert app.handle("fork").result(0) == handle.result(0) == ["1!", "2!", "3!"]
    assert [line.split()[0] for line in told(world)] == [*STEPS, "3"]
    assert agentos_pool.rows("SELECT count(*) FROM agentos.checkpoints WHERE task_id = 'fork'") == [(3,)]
