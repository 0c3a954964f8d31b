"""What becomes of a call in doubt: retried, probed, asked about, failed; in async and blocking handlers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import NOT_DONE, UNKNOWN, App, BlockingContext, Done, TaskContext, ToolCall
from agentos.core.idempotency import ToolLedger
from agentos.store.errors import AnswerRefused, InDoubt, InvalidInput, TaskFailed
from agentos.testing import Pool, crash_at


class World:
    """What tools did to it, outside of the database and of every process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def do(self, *words: str) -> None:
        with self.path.open("a") as file:
            file.write(" ".join(words) + "\n")

    @property
    def done(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def truth(self, arguments: Any) -> tuple[Any, ...]:
        """What a person who looked would answer about a charge."""
        was = any(line.split()[1] == str(arguments) for line in self.done)
        return ("done", {"charged": arguments}) if was else ("not_done",)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def charging(world: World, **declared: Any) -> App:
    """An app whose two handlers, async and blocking, charge a card once."""
    app = App()

    @app.tool("charge", **declared)
    async def charge(call: ToolCall, arguments: Any) -> dict[str, Any]:
        world.do("charge", str(arguments), call.headers["Idempotency-Key"])
        return {"charged": arguments}

    @app.task("order")
    async def order(ctx: TaskContext, on_doubt: Any = None) -> dict[str, Any]:
        return await ctx.tool("charge", 5, on_doubt=on_doubt)

    @app.task("blocking_order")
    def blocking_order(ctx: BlockingContext, on_doubt: Any = None) -> dict[str, Any]:
        return ctx.tool("charge", 5, on_doubt=on_doubt)

    @app.task("orders")
    async def orders(ctx: TaskContext) -> list[Any]:
        return list(await asyncio.gather(*(ctx.tool("charge", n) for n in range(3))))

    return app


KINDS = pytest.mark.parametrize("kind", ["order", "blocking_order"])


@KINDS
def test_asked_about_a_call_in_doubt_a_person_says_what_it_returned(
    agentos_pool: Pool, world: World, kind: str
) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit(kind)
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    assert agentos_pool.drain(app).left == {"waiting": 1}
    assert handle.status() == "waiting"
    (doubt,) = app.doubts()
    assert (doubt.task_id, doubt.tool_name, doubt.arguments, doubt.parked) == (handle.task_id, "charge", 5, True)
    assert world.done == [f"charge 5 {doubt.idempotency_key}"]
    assert handle.resolve("done", {"charged": 6}, by="alice").became == "ready"
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 6}
    assert len(world.done) == 1


@KINDS
def test_what_a_person_says_was_not_done_runs_again_under_the_same_idempotency_key(
    agentos_pool: Pool, world: World, kind: str
) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit(kind)
    with crash_at("after:ledger_begin"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    (doubt,) = handle.doubts()
    handle.resolve("not_done", by="alice")
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 5}
    assert world.done == [f"charge 5 {doubt.idempotency_key}"]


def test_a_person_may_fail_the_item_and_is_asked_again_after_a_retry(agentos_pool: Pool, world: World) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit("order")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.resolve("fail", by="alice").became == "failed"
    with pytest.raises(TaskFailed, match=r"never finished; failed by alice"):
        handle.result(0)
    agentos_pool.rows("SELECT agentos.retry_task(%s)", handle.task_id)
    agentos_pool.drain(app)
    handle.resolve("done", {"charged": 5})
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 5}
    assert len(world.done) == 1


def test_a_task_that_failed_in_doubt_is_resolved_and_retried(agentos_pool: Pool, world: World) -> None:
    app = charging(world)
    handle = app.submit("order")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    with pytest.raises(TaskFailed, match=r"agentos resolve|never finished"):
        handle.result(0)
    (doubt,) = app.doubts()
    assert not doubt.parked
    with pytest.raises(AnswerRefused, match="not parked"):
        handle.resolve("fail")
    assert handle.resolve("done", {"charged": 5}).became == "noted"
    agentos_pool.rows("SELECT agentos.retry_task(%s)", handle.task_id)
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 5}
    assert len(world.done) == 1


def test_a_second_answer_and_one_to_nothing_are_refused(agentos_pool: Pool, world: World) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit("order")
    with pytest.raises(AnswerRefused, match="nothing is asked"):
        handle.resolve("done")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    with pytest.raises(AnswerRefused, match="is about a call, continue does not answer it"):
        handle.resolve("continue")
    with pytest.raises(InvalidInput, match="only `done` has a result"):
        handle.resolve("not_done", {"a": 1})
    handle.resolve("done")
    with pytest.raises(AnswerRefused, match="nothing is asked"):
        handle.resolve("not_done")


def test_calls_in_doubt_at_the_same_time_are_all_shown_before_the_item_waits(agentos_pool: Pool, world: World) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit("orders")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    begun = agentos_pool.rows("SELECT arguments::text FROM agentos.tool_ledger WHERE state = 'begun'")
    agentos_pool.drain(app)
    doubts = handle.doubts()
    assert sorted(str(each.arguments) for each in doubts) == sorted(arguments for (arguments,) in begun)
    became = [handle.resolve(*world.truth(each.arguments), call=str(each.doubt_id)[:8]).became for each in doubts]
    assert became == ["waiting"] * (len(doubts) - 1) + ["ready"]
    agentos_pool.drain(app)
    assert handle.result(0) == [{"charged": n} for n in range(3)]
    assert len(world.done) == len({line.split()[1] for line in world.done}) == 3


def test_a_call_may_say_something_else_than_its_tool(agentos_pool: Pool, world: World) -> None:
    app = charging(world, on_doubt="fail")
    handle = app.submit("order", {"on_doubt": "retry"})
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 5}
    assert len(world.done) == 2
    assert len(set(world.done)) == 1


async def looks(_call: ToolCall, arguments: Any) -> Done:
    return Done({"found": arguments})


def raises(_call: ToolCall) -> Any:
    raise ConnectionError("the bank is closed")


@KINDS
@pytest.mark.parametrize(
    ("probe", "outcome"),
    [(looks, {"found": 5}), (lambda _call, arguments: Done({"found": arguments}), {"found": 5}),
     (lambda _call: NOT_DONE, {"charged": 5})],
)  # fmt: skip
def test_a_probe_is_asked_sync_or_async(
    agentos_pool: Pool, world: World, kind: str, probe: Any, outcome: dict[str, int]
) -> None:
    app = charging(world, on_doubt="probe", probe=probe)
    handle = app.submit(kind)
    with crash_at("after:ledger_begin"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.result(0) == outcome


@pytest.mark.parametrize(
    ("probe", "said"), [(raises, "raised ConnectionError"), (lambda: UNKNOWN, "could not find out")]
)
@pytest.mark.parametrize("on_unknown", ["ask", "fail"])
def test_what_a_probe_cannot_tell_is_asked_or_fails_as_declared(
    agentos_pool: Pool, world: World, probe: Any, said: str, on_unknown: str
) -> None:
    app = charging(world, on_doubt="probe", probe=probe, on_unknown=on_unknown)
    handle = app.submit("order")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.status() == {"ask": "waiting", "fail": "failed"}[on_unknown]
    (doubt,) = handle.doubts()
    assert said in doubt.message
    assert len(world.done) == 1


def test_a_ledger_outside_of_a_handler_stops_and_goes_on_with_the_answer(agentos_pool: Pool) -> None:
    app = App()
    handle = app.submit("work")
    calls: list[str] = []

    def break_off() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ToolLedger().execute_or_replay("bash", "make", handle.task_id, break_off)
    with pytest.raises(InDoubt):
        ToolLedger().execute_or_replay("bash", "make", handle.task_id, lambda: calls.append("ran"), on_doubt="ask")
    handle.resolve("done")
    replayed = ToolLedger().execute_or_replay("bash", "make", handle.task_id, lambda: calls.append("ran"))
    assert (replayed["exit_code"], replayed["replayed"], calls) == (0, True, [])


def test_an_async_probe_serves_the_blocking_ledger_too(agentos_pool: Pool) -> None:
    handle = App().submit("work")

    def break_off() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ToolLedger().execute_or_replay("bash", "make", handle.task_id, break_off)
    found = ToolLedger().execute_or_replay(
        "bash", "make", handle.task_id, break_off, on_doubt="probe", probe=looks_for_nothing
    )
    assert found["found"] is True


async def looks_for_nothing() -> Done:
    return Done({"found": True})


async def test_the_awaited_api_answers_too(agentos_pool: Pool, world: World) -> None:
    app = charging(world, on_doubt="ask")
    handle = app.submit("order")
    with crash_at("before:ledger_finish"):
        await agentos_pool.adrain(app)
    await agentos_pool.adrain(app)
    assert [each.task_id for each in await app.adoubts()] == [handle.task_id]
    (doubt,) = await handle.adoubts()
    assert (await handle.aresolve("done", {"charged": 5}, call=str(doubt.doubt_id))).became == "ready"
    await agentos_pool.adrain(app)
    assert await handle.aresult(0) == {"charged": 5}


def test_a_shell_item_may_ask(agentos_pool: Pool, tmp_path: Path) -> None:
    app = App()
    handle = app.submit("shell", {"command": f"echo ran >> {tmp_path / 'ran'}", "on_doubt": "ask"})
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    handle.resolve("done")
    agentos_pool.drain(app)
    assert handle.result(0)["exit_code"] == 0
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_the_example_of_the_documentation_asks_and_goes_on(agentos_pool: Pool) -> None:
    text = (Path(__file__).parents[3] / "docs" / "tools-and-doubt.md").read_text()
    named: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], named)  # noqa: S102  the page is ours
    app: App = named["app"]
    handle = app.submit("order", {"amount": 7})
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.resolve("done", {"charged": 7}).became == "ready"
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 7}
