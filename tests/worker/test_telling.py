"""Progress, log lines and tokens: in order, live, without a commit each, and never from somebody who lost the item."""

import asyncio
from pathlib import Path

import pytest
from tests.worker.inprocess import serving

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.store.connect import connect
from agentos.store.errors import InvalidInput, ValueTooLarge

app = App()


@app.task("told")
async def told(ctx: TaskContext) -> str:
    ctx.progress(0, 3)
    await ctx.checkpoint("iteration_start", {})
    ctx.log("began", host="here")
    for token in ("to", "ken", "s"):
        ctx.tell_tokens("plan", token)
    ctx.log.warning("careful")
    for n in range(1, 4):
        ctx.progress(n, 3, f"step {n}")
    return "done"


@app.task("told_blocking")
def told_blocking(ctx: BlockingContext) -> None:
    ctx.progress(1)
    ctx.log("from a thread")


@app.task("refused")
async def refused(ctx: TaskContext) -> None:
    with pytest.raises(InvalidInput, match="progress of 4 of 3"):
        ctx.progress(4, 3)
    with pytest.raises(InvalidInput, match="progress of nan"):
        ctx.progress(float("nan"))
    with pytest.raises(ValueTooLarge):
        ctx.log("x" * 20_000)


@app.task("chatty")
async def chatty(ctx: TaskContext) -> None:
    for n in range(2_000):
        ctx.tell_tokens("plan", f"{n} ")
        ctx.progress(n)
        if n % 100 == 0:
            await asyncio.sleep(0)


@app.task("slow")
async def slow(ctx: TaskContext, go: str) -> None:
    ctx.log("first")
    while not Path(go).exists():  # noqa: ASYNC110, ASYNC240  the test makes it
        await asyncio.sleep(0.01)
    ctx.log("second")


@app.task("parks")
async def parks(ctx: TaskContext) -> None:
    ctx.log(f"attempt {ctx.attempt}")
    await ctx.wait_for("go")
    ctx.log("went on")


async def test_what_was_told_just_before_parking_is_told(database_dsn: str) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "parks")
        seen = []
        async for event in handle.aevents():
            if event.event == "log":
                seen.append(event.data["message"])
            if seen == ["attempt 1"]:
                await asyncio.to_thread(app.signal, handle.task_id, "go")
    assert seen == ["attempt 1", "attempt 2", "went on"]


async def test_what_a_handler_tells_is_followed_in_order(database_dsn: str) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "told")
        events = [event async for event in handle.aevents()]
    assert [(e.event, e.data) for e in events if e.event != "progress"] == [
        ("log", {"level": "info", "message": "began", "fields": {"host": "here"}}),
        ("tokens", {"call": "plan", "text": "tokens"}),
        ("log", {"level": "warning", "message": "careful"}),
    ]
    assert events[-1].data == {"done": 3, "total": 3, "message": "step 3"}
    again = [event async for event in handle.aevents(after=events[1].cursor)]
    assert again == events[2:]


async def test_a_plain_handler_tells_from_its_thread(database_dsn: str) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "told_blocking")
        assert [event.event async for event in handle.aevents()] == ["progress", "log"]


async def test_what_cannot_be_told_is_refused_at_once(database_dsn: str) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "refused")
        await handle.aresult(60)


async def test_thousands_of_tokens_cost_a_few_commits(database_dsn: str) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "chatty")
        events = [event async for event in handle.aevents()]
    assert "".join(e.data["text"] for e in events if e.event == "tokens") == "".join(f"{n} " for n in range(2_000))
    with connect(database_dsn) as conn:
        row = conn.execute(
            "SELECT count(DISTINCT xact), extract(epoch FROM max(at) - min(at))::float8 FROM agentos.events"
        ).fetchone()
    assert row is not None
    assert row[0] <= 10 + row[1] / 0.15  # a batch each 0.15 s, however slow the machine is


async def test_it_is_seen_while_the_handler_runs(database_dsn: str, tmp_path: Path) -> None:
    async with serving(app, database_dsn):
        handle = await asyncio.to_thread(app.submit, "slow", {"go": str(tmp_path / "go")})
        seen = []
        async for event in handle.aevents():
            seen.append(event.data["message"])
            (tmp_path / "go").touch()
        assert seen == ["first", "second"]
