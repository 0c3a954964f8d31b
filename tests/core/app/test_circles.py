"""A handler that checkpoints again on every resume waits in a circle: it is said, and progress is not."""

import io

import pytest
from tests.core.test_logs import lines, logging_as_before

from agentos.core.app import App, TaskContext
from agentos.core.logs import configure_logs
from agentos.store.calls import timeline
from agentos.testing import Pool

__all__ = ["logging_as_before"]

app = App()


@app.task("deaf")
async def deaf(ctx: TaskContext) -> str:
    await ctx.checkpoint("iteration_start", {"begun": True})
    told: str = await ctx.wait_for("go")
    return told


@app.task("once")
async def once(ctx: TaskContext) -> str:
    if ctx.snapshot is None:
        await ctx.checkpoint("iteration_start", {"begun": True})
    told: str = await ctx.wait_for("go")
    return told


@app.task("dozing")
async def dozing(ctx: TaskContext) -> None:
    await ctx.checkpoint("iteration_start", {"begun": True})
    await ctx.sleep(60)


@app.task("going_on")
async def going_on(ctx: TaskContext) -> None:
    for n in range((ctx.snapshot or {"n": 0})["n"], 20):
        await ctx.checkpoint("iteration_end", {"n": n + 1})
        await ctx.sleep(60)


def again(pool: Pool) -> dict[str, int]:
    """Who waits again, how often."""
    found = [each.data for each in pool.database.run(timeline.findings()) if each.finding == "waits_again"]
    return {data["task_id"]: data["times"] for data in found}


def warned(said: io.StringIO) -> list[str]:
    return [line["reason"] for line in lines(said) if line["event"].startswith("it waits in a circle")]


def test_a_signal_that_is_not_read_is_said_at_once(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch, logging_as_before: None
) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    configure_logs("json", "warning")
    for kind in ("deaf", "once"):
        app.submit(kind, task_id=kind)
    agentos_pool.drain(app)
    assert again(agentos_pool) == {}
    for kind in ("deaf", "once"):
        app.handle(kind).signal("go", "gone")
    agentos_pool.drain(app)
    assert app.handle("once").result(0) == "gone"
    assert again(agentos_pool) == {"deaf": 1}
    assert warned(said) == ['signal {"name":"go","timeout_s":null}']


def test_a_sleep_is_said_at_the_fourth_time_and_progress_never(agentos_pool: Pool) -> None:
    for kind in ("dozing", "going_on"):
        app.submit(kind, task_id=kind)
    found = []
    for _ in range(6):
        agentos_pool.drain(app)
        found.append(again(agentos_pool))
        agentos_pool.clock.advance(61)
    assert found == [{}, {}, {}, {}, {"dozing": 4}, {"dozing": 5}]
