"""Waits cost a row and not a slot: the handler is left, and called again with what it waited for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import ALL_DUE, Sweeping

from agentos.core.app import App, BlockingContext, TaskContext, TaskHandle
from agentos.core.parked import Parked
from agentos.store.calls import tasks
from agentos.store.calls.ledger import ledger_history
from agentos.store.calls.tasks import TaskRow
from agentos.store.connect import Database
from agentos.store.errors import ChildFailed, StaleAnswer, TaskFailed, WaitTimeout


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until something holds, for at most thirty seconds."""
    async with asyncio.timeout(30):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110  it is the database's
            await asyncio.sleep(0.01)
    return found


async def parked(handle: TaskHandle) -> None:
    await until(lambda: handle.status() == "waiting")


def ledger(db: Database, handle: TaskHandle) -> dict[str, str]:
    return {entry.tool_name: entry.state for entry in db.run(ledger_history(handle.task_id))}


async def test_a_sleeping_item_holds_no_slot_and_goes_on_when_its_time_has_come(
    database_dsn: str, db: Database, clock: Any, sweeping: Sweeping
) -> None:
    app, runs = App(dsn=database_dsn), []

    @app.task("sleeper")
    async def sleeper(ctx: TaskContext) -> int:
        runs.append(ctx.attempt)
        await ctx.sleep(3600)
        await ctx.sleep_until(datetime.now(UTC) - timedelta(seconds=5))
        return len(runs)

    async with serving(app, database_dsn, concurrency=1, ttl_s=7200) as worker:
        handles = app.submit_many("sleeper", [{}] * 3)
        for handle in handles:
            await parked(handle)
        await until(lambda: not worker.held)
        clock.advance(3600)
        assert [await outcome(handle) for handle in handles] == [4, 5, 6]
    assert ledger(db, handles[0]) == {"@sleep": "finished"}
    (item,) = db.run(tasks.task_items(handles[0].task_id))
    assert (item.attempt, item.failures, item.crashes) == (2, 0, 0)


async def test_less_than_a_second_is_slept_in_place(database_dsn: str, db: Database) -> None:
    app = App(dsn=database_dsn)

    @app.task("napper")
    async def napper(ctx: TaskContext) -> int:
        await ctx.sleep(0.01)
        return ctx.attempt

    async with serving(app, database_dsn):
        handle = app.submit("napper")
        assert await outcome(handle) == 1
    assert ledger(db, handle) == {}


@pytest.mark.parametrize("early", [True, False])
async def test_a_signal_ends_one_wait_whether_it_comes_before_or_after_it(
    database_dsn: str, db: Database, early: bool
) -> None:
    app, heard = App(dsn=database_dsn), []

    @app.task("listener")
    async def listener(ctx: TaskContext) -> list[Any]:
        first = await ctx.wait_for("paid")
        heard.append(first)
        return [first, await ctx.wait_for("paid"), ctx.attempt]

    handle = app.submit("listener")
    if early:
        handle.signal("paid", {"n": 1})
        await handle.asignal("paid", {"n": 2})
    async with serving(app, database_dsn):
        if not early:
            await parked(handle)
            await app.asignal(handle.task_id, "other")
            await handle.asignal("paid", {"n": 1})
            await until(lambda: len(heard) == 1)
            await parked(handle)
            await handle.asignal("paid", {"n": 2})
        result = await outcome(handle)
    assert result[:2] == [{"n": 1}, {"n": 2}]
    assert early is (result[2] == 1), "what is there already is not parked for"


async def test_a_wait_times_out_at_its_deadline_and_stays_timed_out(
    database_dsn: str, clock: Any, sweeping: Sweeping
) -> None:
    app, tries = App(dsn=database_dsn), []

    @app.task("impatient")
    async def impatient(ctx: TaskContext) -> str:
        try:
            await ctx.wait_for("never", timeout_s=60)
        except WaitTimeout:
            tries.append(ctx.attempt)
            if len(tries) == 1:
                raise ValueError("after the timeout") from None
            return "gave up"
        return "heard"

    async with serving(app, database_dsn, ttl_s=7200):
        handle = app.submit("impatient")
        await parked(handle)
        clock.advance(61)
        await until(lambda: tries)
        await handle.asignal("never")
        clock.advance(10)
        assert await outcome(handle) == "gave up"


async def test_an_answer_counts_for_what_was_shown(database_dsn: str, db: Database) -> None:
    app = App(dsn=database_dsn)

    @app.task("asker")
    async def asker(ctx: TaskContext) -> Any:
        answer = await ctx.approval("publish?", shown={"pages": 3}, options=["now", "later"])
        return [answer.option, answer.by]

    async with serving(app, database_dsn):
        handle = app.submit("asker")
        await parked(handle)
        (asked,) = handle.questions()
        assert (asked.question, asked.shown, asked.options) == ("publish?", {"pages": 3}, ["now", "later"])
        with pytest.raises(StaleAnswer):
            handle.answer(by="ana", option="now", shown_sha256="0" * 64)
        handle.answer(by="ana", option="later", shown_sha256=asked.shown_sha256)
        assert await outcome(handle) == ["later", "ana"]
    assert handle.questions() == ()


async def test_a_no_fails_the_item_at_once_and_a_retry_asks_again(database_dsn: str, db: Database) -> None:
    app = App(dsn=database_dsn)

    @app.task("asker")
    async def asker(ctx: TaskContext) -> str:
        await ctx.approval("publish?")
        return "published"

    async with serving(app, database_dsn):
        handle = app.submit("asker")
        await parked(handle)
        handle.answer(False, by="ana")
        error = await outcome(handle)
        assert isinstance(error, TaskFailed)
        assert "ana said no to: publish?" in str(error)
        db.run(tasks.retry_task(handle.task_id))
        app.wake()
        await parked(handle)
        handle.answer(by="ana")
        assert await outcome(handle) == "published"


async def test_branches_that_all_wait_park_the_item_and_any_of_them_wakes_it(database_dsn: str, db: Database) -> None:
    app, seen = App(dsn=database_dsn), []

    @app.task("both")
    async def both(ctx: TaskContext, how: str) -> list[Any]:
        seen.append(ctx.attempt)
        if how == "gather":
            return list(await asyncio.gather(ctx.wait_for("a"), _later(ctx.wait_for("b"))))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ctx.wait_for("a"))
            second = group.create_task(_later(ctx.wait_for("b")))
        return [first.result(), second.result()]

    async def _later(wait: Any) -> Any:
        await asyncio.sleep(0.05)
        return await wait

    async with serving(app, database_dsn) as worker:
        for how in ("gather", "group"):
            seen.clear()
            handle = app.submit("both", {"how": how})
            await parked(handle)
            await until(lambda: not worker.held)
            assert ledger(db, handle) == {"@signal": "begun"}
            await handle.asignal("b", 2)
            await until(lambda: len(seen) == 2)
            await parked(handle)
            await handle.asignal("a", 1)
            assert await outcome(handle) == [1, 2]
            assert len(seen) == 3


async def test_a_branch_that_works_keeps_the_slot_until_it_is_done(database_dsn: str, db: Database) -> None:
    app, go, done = App(dsn=database_dsn), asyncio.Event(), []

    @app.task("mixed")
    async def mixed(ctx: TaskContext) -> Any:
        return await asyncio.gather(ctx.wait_for("a"), work())

    async def work() -> str:
        await go.wait()
        done.append(1)
        return "worked"

    async with serving(app, database_dsn) as worker:
        handle = app.submit("mixed")
        await until(lambda: ledger(db, handle) == {"@signal": "begun"})
        assert len(worker.held) == 1
        go.set()
        await parked(handle)
        await handle.asignal("a", "heard")
        assert await outcome(handle) == ["heard", "worked"]


async def test_code_that_catches_everything_does_not_go_on_with_a_parked_item(database_dsn: str) -> None:
    app, after = App(dsn=database_dsn), []

    @app.task("stubborn")
    async def stubborn(ctx: TaskContext) -> str:
        try:
            return str(await ctx.wait_for("a"))
        except Exception:
            return "an exception"
        except Parked:
            after.append(ctx.attempt)
            return "not this"

    async with serving(app, database_dsn):
        handle = app.submit("stubborn")
        await parked(handle)
        await handle.asignal("a", "heard")
        assert await outcome(handle) == "heard"
    assert after == [1]


async def test_children_are_made_once_and_gathered_in_their_order(database_dsn: str, db: Database) -> None:
    app, runs = App(dsn=database_dsn), []

    @app.task("parent", max_attempts=2)
    async def parent(ctx: TaskContext) -> Any:
        runs.append(ctx.attempt)
        children = [await ctx.spawn("child", {"n": n}, key=f"c{n}") for n in range(3)]
        children.append(await ctx.spawn("child", {"n": 9}))
        if len(runs) == 1:
            raise ValueError("after the children were made")
        assert await ctx.gather() == []
        return await ctx.gather(*children)

    @app.task("child", max_attempts=1)
    async def child(ctx: TaskContext, n: int) -> int:
        return n * 10

    async with serving(app, database_dsn, concurrency=1):
        handle = app.submit("parent")
        await until(lambda: runs)
        db.run(ALL_DUE)
        with Sweeping(db, hurry=True):
            assert await outcome(handle) == [0, 10, 20, 90]
    made = db.run(tasks.list_tasks())
    assert sorted(task.kind or "" for task in made) == ["child"] * 4 + ["parent"]


async def test_a_child_that_failed_fails_its_parent_with_its_reason_and_a_retry_runs_it_again(
    database_dsn: str, db: Database
) -> None:
    app, broken = App(dsn=database_dsn), [True]

    @app.task("parent")
    async def parent(ctx: TaskContext, keep: bool) -> Any:
        children = [await ctx.spawn("child", {"n": n}) for n in range(2)]
        told = await ctx.gather(*children, return_exceptions=keep)
        return [str(each) if isinstance(each, ChildFailed) else each for each in told]

    @app.task("child", max_attempts=1)
    async def child(ctx: TaskContext, n: int) -> int:
        if n and broken[0]:
            raise ValueError("it is broken")
        return n

    async with serving(app, database_dsn):
        told = await outcome(app.submit("parent", {"keep": True}))
        assert told[0] == 0
        assert "(child) failed: main: it is broken" in told[1]
        handle = app.submit("parent", {"keep": False})
        error = await outcome(handle)
        assert isinstance(error, TaskFailed)
        assert "it is broken" in str(error)
        broken[0] = False
        db.run(tasks.retry_task(handle.task_id))
        app.wake()
        assert await outcome(handle) == [0, 1]


async def test_a_cancel_reaches_the_children_wherever_they_are(database_dsn: str, db: Database) -> None:
    app, told = App(dsn=database_dsn), []

    @app.task("parent")
    def parent(ctx: BlockingContext) -> Any:
        return ctx.gather(ctx.spawn("child", {"how": "run"}), ctx.spawn("child", {"how": "wait"}))

    @app.task("child")
    async def child(ctx: TaskContext, how: str) -> None:
        if how == "wait":
            await ctx.wait_for("never")
        try:
            told.append("runs")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async with serving(app, database_dsn, beat_s=0.1):
        handle = app.submit("parent")
        await parked(handle)
        await until(lambda: told and {t.status for t in db.run(tasks.list_tasks())} == {"waiting", "running"})
        assert handle.cancel() == "cancelled"
        await until(lambda: {t.status for t in db.run(tasks.list_tasks())} == {"cancelled"})
    assert told == ["runs", "cancelled"]


async def test_a_plain_handler_waits_as_a_row_and_its_threads_in_the_slot(database_dsn: str, db: Database) -> None:
    app, threads = App(dsn=database_dsn), []

    @app.task("blocking")
    def blocking(ctx: BlockingContext) -> list[Any]:
        threads.append(threading.get_ident())
        first = ctx.wait_for("a")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(ctx.wait_for, "b").result()
        return [first, second, ctx.attempt, ctx.approval("sure?", options=["x"]).option]

    async with serving(app, database_dsn) as worker:
        handle = app.submit("blocking")
        await parked(handle)
        await handle.asignal("a", 1)
        await until(lambda: len(threads) == 2 and len(ledger(db, handle)) and len(worker.held) == 1)
        await handle.asignal("b", 2)
        await until(handle.questions)
        await parked(handle)
        handle.answer(by="ana", option="x")
        assert await outcome(handle) == [1, 2, 3, "x"]


def test_the_example_of_the_page_does_what_it_says(database_dsn: str, db: Database) -> None:
    page = (Path(__file__).parents[2] / "docs" / "waits.md").read_text()
    scope: dict[str, Any] = {"__name__": "page"}
    exec(page.split("```python")[1].split("```")[0], scope)  # noqa: S102  our own page
    app: App = scope["app"]

    async def follow() -> Any:
        async with serving(app, database_dsn):
            handle = app.submit("order", {"amount": 12})
            await handle.asignal("paid", {"by": "card"})
            with Sweeping(db):
                await until(handle.questions)
                handle.answer(by="ana", option="sea")
                return await outcome(handle)

    checked = ["stock is fine", "address is fine"]
    assert asyncio.run(follow()) == {"checked": checked, "way": "sea", "paid": {"by": "card"}}


async def test_a_running_handler_is_told_at_its_deadline(database_dsn: str, db: Database, clock: Any) -> None:
    app, told = App(dsn=database_dsn), []

    @app.task("slow", deadline_s=60)
    async def slow(ctx: TaskContext) -> None:
        try:
            told.append("runs")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async with serving(app, database_dsn, beat_s=0.1, ttl_s=600):
        handle = app.submit("slow")
        (other,) = app.submit_many("slow", [{}])
        await until(lambda: len(told) == 2)
        clock.advance(61)
        assert db.run(tasks.expire_tasks()) == 2
        for error in (await outcome(handle), await outcome(other)):
            assert isinstance(error, TaskFailed)
            assert "DeadlineExceeded" in str(error)
    assert sorted(told) == ["cancelled", "cancelled", "runs", "runs"]


@pytest.mark.parametrize(("own", "seconds"), [({}, 3600), ({"deadline_s": 60}, 60)])
async def test_a_child_has_the_deadline_of_its_handler_or_of_its_call_and_a_replay_does_not_move_it(
    database_dsn: str, db: Database, hurrying: Sweeping, own: dict[str, float], seconds: int
) -> None:
    app = App(dsn=database_dsn)

    @app.task("child", deadline_s=3600)
    async def child(ctx: TaskContext) -> None:
        await ctx.wait_for("never")

    @app.task("parent")
    async def parent(ctx: TaskContext) -> str:
        made = await ctx.spawn("child", **own)  # type: ignore[arg-type]
        if ctx.attempt == 1:
            raise ValueError("again")
        return made.task_id

    handle = app.submit("parent")
    async with serving(app, database_dsn):
        made = await outcome(handle)
    with db.connection() as conn:
        rows = conn.execute(
            "SELECT d.task_id, extract(epoch FROM d.deadline_at - r.created_at)::float8"
            " FROM agentos.deadlines d JOIN agentos.task_records r USING (task_id)"
        ).fetchall()
    assert rows == [(made, pytest.approx(seconds, abs=1))]


def made(db: Database) -> list[TaskRow]:
    """The child tasks."""
    return [task for task in db.run(tasks.list_tasks()) if task.kind == "child"]


@pytest.mark.parametrize("on_failure", ["cancel", "wait"])
async def test_a_child_that_fails_has_those_gathered_with_it_cancelled_or_left_to_go_on(
    database_dsn: str, db: Database, on_failure: Literal["cancel", "wait"]
) -> None:
    app, told = App(dsn=database_dsn), []

    @app.task("parent")
    async def parent(ctx: TaskContext) -> Any:
        apart = await ctx.spawn("child", {"how": "waits"}, key="apart")
        children = [await ctx.spawn("child", {"how": how}) for how in ("runs", "waits", "fails", "spawns")]
        try:
            await ctx.gather(*children, on_failure=on_failure)
        except ChildFailed as exc:
            told.append(str(exc))
        return apart.task_id

    @app.task("child", max_attempts=1)
    async def child(ctx: TaskContext, how: str) -> Any:
        if how == "fails":
            await ctx.wait_for("go")
            raise ValueError("it is broken")
        if how == "spawns":
            return await ctx.gather(await ctx.spawn("child", {"how": "waits"}))
        if how == "waits":
            return await ctx.wait_for("done")
        try:
            await asyncio.sleep(3600 if on_failure == "cancel" else 0.1)
        finally:
            told.append("ran")

    async with serving(app, database_dsn, beat_s=0.1):
        handle = app.submit("parent")
        await parked(handle)
        await until(lambda: [task.status for task in made(db)].count("waiting") == 5)
        (fails,) = [task for task in made(db) if task.payload == {"how": "fails"}]
        await app.handle(fails.task_id).asignal("go")
        if on_failure == "wait":
            await until(lambda: app.handle(fails.task_id).status() == "failed")
            for task in made(db):
                if task.payload == {"how": "waits"}:
                    await app.handle(task.task_id).asignal("done")
        apart = await outcome(handle)
        assert [each for each in told if each != "ran"] == [told[-1]]
        assert "it is broken" in told[-1], "the cause, not who was cancelled for it"
    ended = {task.task_id: task.status for task in made(db)}
    others = sorted(status for task_id, status in ended.items() if task_id != apart)
    if on_failure == "cancel":
        assert others == ["cancelled"] * 4 + ["failed"], "and what one of them spawned"
        assert ended[apart] == "waiting"
    else:
        assert others == ["completed"] * 4 + ["failed"]
