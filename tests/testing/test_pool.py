"""`agentos.testing`: a worker that drains, a clock that is moved, and processes that really die."""

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, TaskContext
from agentos.store.errors import InvalidInput, UnknownTask
from agentos.testing import CRASH_TIMES, CrashPointNotReached, Pool, crash_at, crash_points
from agentos.worker.claims import Claims


def order_app(log: Path, on_doubt: Any = "retry") -> App:
    """An agent that pays, charges and saves, and writes down what really happened."""
    app = App()

    @app.tool("charge", on_doubt=on_doubt)
    def charge(arguments: Any) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"charged {arguments['id']}\n")
        return {"charged": 1}

    @app.task("order", max_attempts=3)
    async def order(ctx: TaskContext, id: int) -> dict[str, Any]:
        state = ctx.snapshot or {}
        if not state:
            state = await ctx.tool("charge", {"id": id})
            await ctx.checkpoint("tool_executed", state)
        return {**state, "pid": os.getpid()}

    @app.task("flaky")
    async def flaky(ctx: TaskContext) -> int:
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return ctx.attempt

    return app


def test_drain_works_until_nothing_is_ready(agentos_pool: Pool, tmp_path: Path) -> None:
    app = order_app(tmp_path / "log")
    handles = app.submit_many("order", [{"id": n} for n in range(20)])
    drained = agentos_pool.drain(app)
    assert drained.ended == {"completed": 20}
    assert drained.left == {}
    assert not drained.killed
    assert [handle.result(0)["charged"] for handle in handles] == [1] * 20


async def test_drain_can_be_awaited(agentos_pool: Pool, tmp_path: Path) -> None:
    app = order_app(tmp_path / "log")
    handle = await asyncio.to_thread(app.submit, "order", {"id": 1})
    await agentos_pool.adrain(app)
    assert (await handle.aresult(0))["charged"] == 1


def test_what_is_due_later_stays_until_the_clock_is_moved(agentos_pool: Pool, tmp_path: Path) -> None:
    app = order_app(tmp_path / "log")
    handle = app.submit("order", {"id": 1}, delay_s=3600)
    assert agentos_pool.drain(app).left == {"scheduled": 1}
    agentos_pool.clock.advance(3601)
    assert agentos_pool.drain(app).ended == {"completed": 1}
    assert handle.result(0)["charged"] == 1


def test_waits_are_skipped_when_asked(agentos_pool: Pool, tmp_path: Path) -> None:
    app = order_app(tmp_path / "log")
    handle = app.submit("flaky")
    assert agentos_pool.drain(app).left == {"scheduled": 1}
    agentos_pool.drain(app, skip_waits=True)
    assert handle.result(0) == 3


@pytest.mark.parametrize("when", CRASH_TIMES)
@pytest.mark.parametrize("call", ["claim", "ledger_begin", "ledger_finish", "commit_checkpoint", "complete"])
def test_a_worker_dies_where_it_is_told_to_and_another_goes_on(
    agentos_pool: Pool, tmp_path: Path, call: str, when: str
) -> None:
    log = tmp_path / "log"
    app = order_app(log)
    handle = app.submit("order", {"id": 7})
    with crash_at(f"{when}:{call}"):
        assert agentos_pool.drain(app).killed
    agentos_pool.drain(app)
    assert handle.result(0)["charged"] == 1
    if (when, call) == ("after", "complete"):
        assert handle.result(0)["pid"] != os.getpid()  # it was a process of its own
    repeated = when in ("before", "during") and call == "ledger_finish"  # done and not recorded: `retry` repeats it
    assert log.read_text().count("charged 7") in ({1, 2} if repeated else {1})


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_handler_that_dies_at_its_submit_has_submitted_or_not(agentos_pool: Pool, when: str) -> None:
    app = App()

    @app.task("outer")
    async def outer(ctx: TaskContext) -> None:
        await app.asubmit("inner", {}, task_id="inner", delay_s=3600)

    @app.task("inner")
    async def inner(ctx: TaskContext) -> None:
        """Never begins."""

    app.submit("outer")
    with crash_at(f"{when}:submit"):
        assert agentos_pool.drain(app).killed
    with pytest.raises(UnknownTask) if when == "before" else nullcontext():
        assert app.handle("inner").status() == "created"


def test_a_tool_that_does_not_say_stops_the_task_in_doubt(agentos_pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    app = order_app(log, on_doubt="fail")
    handle = app.submit("order", {"id": 7})
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    with pytest.raises(Exception, match="never finished"):
        handle.result(0)
    assert log.read_text() == "charged 7\n"


def test_a_point_that_is_not_passed_is_said_with_those_that_were(agentos_pool: Pool, tmp_path: Path) -> None:
    app = order_app(tmp_path / "log")
    app.submit("order", {"id": 7})
    refused = pytest.raises(
        CrashPointNotReached, match=r"without coming to after:cache_finish; it passed .*ledger_begin"
    )
    with refused, crash_at("after:cache_finish"):
        agentos_pool.drain(app)


@pytest.mark.parametrize("point", ["after:ledger_finnish", "ledger_finish", "later:claim"])
def test_a_point_that_does_not_exist_is_refused_with_its_neighbours(point: str) -> None:
    with pytest.raises(InvalidInput, match="no crash point"), crash_at(point):
        pass
    assert "ledger_finish" in crash_points()


def test_what_is_claimed_is_waited_for_though_the_reply_of_the_claim_is_late(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, runs = App(dsn=agentos_pool.dsn), list[int]()
    really = Claims._answered

    async def late(claims: Claims, call: Any) -> Any:
        reply = await really(claims, call)
        await asyncio.sleep(0.1)
        return reply

    monkeypatch.setattr(Claims, "_answered", late)

    @app.task("steps")
    async def steps(ctx: TaskContext) -> None:
        runs.append(ctx.attempt)
        await ctx.checkpoint("iteration_end", 1)

    app.submit("steps")
    agentos_pool.drain(app)
    assert runs == [1]  # a worker that drains stops a handler after its checkpoint
