"""A purged task: nothing of what it was about is left in any table, and what happened is."""

from typing import Any

import pytest
from tests.contents import tables_with

from agentos.core.app import App, Retry, TaskContext, TaskHandle
from agentos.core.evidence import Evidence
from agentos.store.calls import budgets, tasks, timeline
from agentos.store.calls.ledger import ledger_history
from agentos.store.errors import TaskFailed, TaskOpen, TaskPurged, UnknownTask
from agentos.testing import CRASH_TIMES, Pool, crash_at

SECRET = "rosebud"


@pytest.fixture
def app(agentos_pool: Pool) -> App:
    app = App(dsn=agentos_pool.dsn)
    app.tool("search", on_doubt="retry")(lambda arguments: {"found": SECRET, "asked": arguments})

    @app.task("part")
    async def part(ctx: TaskContext, word: str) -> str:
        return word

    @app.task("agent", retry=Retry(initial_s=1, max_attempts=2))
    async def agent(ctx: TaskContext, word: str, fail: bool = False) -> Any:
        ctx.log(f"about {word}", word=word)
        ctx.progress(1, 2, word)
        found = await ctx.tool("search", {"word": word}, key=word)
        plan = await ctx.llm("plan", prompt=f"plan {word}", model="m", generate=lambda _: f"say {word}")
        claim = Evidence("artifact_exists", word, {"path": f"/tmp/{word}"})
        await ctx.checkpoint("iteration_end", {"word": word, "long": f"{word} " * 5000}, [claim])
        child = await ctx.spawn("part", {"word": word})
        kids = await ctx.gather(child)
        sent = await ctx.wait_for("word")
        answer = await ctx.approval(f"publish {word}?", shown={"text": word}, options=[word, "no"])
        if fail:
            raise ValueError(word)
        return [found, plan, kids, sent, answer.option]

    return app


def run(app: App, pool: Pool, **payload: Any) -> TaskHandle:
    handle = app.submit("agent", {"word": SECRET, **payload}, title=f"the {SECRET} case")
    pool.drain(app)
    handle.signal("word", {"word": SECRET})
    pool.drain(app)
    handle.answer(by="ann", option=SECRET)
    pool.drain(app, skip_waits=True)
    return handle


def holding(pool: Pool) -> set[str]:
    """The tables in which the secret stands; of parts of large values only those that somebody refers to."""
    with pool.database.connection() as conn:
        kept = conn.execute("SELECT 1 FROM agentos.blobs b WHERE orphaned_at IS NULL").fetchall()
        return tables_with(conn, SECRET) - {"blobs"} | ({"blobs"} if kept else set())


@pytest.mark.parametrize("fail", [False, True], ids=["completed", "failed"])
def test_no_table_holds_any_of_it_and_the_facts_stay(app: App, agentos_pool: Pool, fail: bool) -> None:
    handle = run(app, agentos_pool, fail=fail)
    assert {"work_items", "checkpoints", "tool_ledger", "llm_cache", "approvals", "signals", "events"} <= holding(
        agentos_pool
    )
    before = agentos_pool.database.run(ledger_history(handle.task_id))
    status = handle.status()
    assert handle.purge(by="compliance") == 2  # its child task too
    assert holding(agentos_pool) == set()
    assert handle.status() == status == ("failed" if fail else "completed")
    after = agentos_pool.database.run(ledger_history(handle.task_id))
    assert [(each.tool_name, each.state, each.begun_at) for each in after] == [
        (each.tool_name, each.state, each.begun_at) for each in before
    ]
    (asked,) = agentos_pool.database.run(timeline.task_approvals(handle.task_id))
    assert (asked.approved, asked.answered_by, len(asked.shown_sha256)) == (True, "ann", 64)
    (used,) = agentos_pool.database.run(budgets.usage_of(["model"], task_id=handle.task_id))
    assert used.calls == 1
    told = agentos_pool.database.run(timeline.task_events(handle.task_id))
    assert told[-1].event == "purged"
    assert told[-1].data == {"by": "compliance"}


def test_there_is_no_result_and_no_way_on(app: App, agentos_pool: Pool) -> None:
    handle = run(app, agentos_pool, fail=True)
    with pytest.raises(TaskFailed):
        handle.result(0)
    handle.purge()
    with pytest.raises(TaskPurged, match="it had ended as failed"):
        handle.result(0)
    with pytest.raises(TaskPurged):
        handle.rewind(0)
    with pytest.raises(TaskPurged):
        handle.rewind(0, dry_run=True)
    with pytest.raises(TaskPurged):
        agentos_pool.database.run(tasks.retry_task(handle.task_id))
    assert handle.purge() == 2  # said again


async def test_a_task_that_has_not_ended_is_refused_with_its_whole_family(app: App, agentos_pool: Pool) -> None:
    handle = app.submit("agent", {"word": SECRET})
    await agentos_pool.adrain(app)
    with pytest.raises(TaskOpen, match="is waiting"):
        await handle.apurge()
    ((child,),) = agentos_pool.rows("SELECT task_id FROM agentos.task_heads WHERE parent_task IS NOT NULL")
    with pytest.raises(TaskOpen, match=handle.task_id):
        await app.handle(child).apurge()
    handle.cancel()
    assert await handle.apurge() == 2
    with pytest.raises(UnknownTask):
        await app.handle("nobody").apurge()


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_who_dies_purging_has_taken_away_all_of_it_or_nothing(agentos_pool: Pool, when: str) -> None:
    app = App(dsn=agentos_pool.dsn)

    @app.task("word")
    async def word(ctx: TaskContext, word: str) -> str:
        return word

    @app.task("purger")
    def purger(ctx: Any, task: str) -> int:
        return App(dsn=agentos_pool.dsn).handle(task).purge(by="the handler")

    handle = app.submit("word", {"word": SECRET})
    agentos_pool.drain(app)
    outer = app.submit("purger", {"task": handle.task_id})
    with crash_at(f"{when}:purge_task"):
        assert agentos_pool.drain(app).killed
    if when != "during":
        assert (holding(agentos_pool) == set()) == (when == "after")
    agentos_pool.drain(app)
    assert outer.result(0) == 1
    assert holding(agentos_pool) == set()
