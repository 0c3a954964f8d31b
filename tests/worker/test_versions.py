"""A rolling upgrade: workers of two versions side by side, and tasks of both."""

import asyncio
from typing import Any

from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Pool, ended

from agentos.core.app import App, TaskContext
from agentos.store.calls import tasks, timeline
from agentos.store.connect import Database

OLD, NEW = "tests.worker.versioned:old", "tests.worker.versioned:new"


def submitter(dsn: str, version: int) -> App:
    app = App(dsn=dsn)

    @app.task("report", version=version)
    async def report(ctx: Any) -> None: ...

    return app


def unroutable(db: Database) -> list[dict[str, Any]]:
    return [each.data for each in db.run(timeline.findings(60.0)) if each.finding == "unroutable"]


def test_a_new_task_waits_for_the_new_worker_and_no_attempt_is_burnt(pool: Pool) -> None:
    old = pool.worker(app=OLD)
    v1, v2 = submitter(pool.dsn, 1), submitter(pool.dsn, 2)
    waiting = v2.submit("report", {})
    first = v1.submit("report", {})
    assert ended(first) == "completed"
    (found,) = unroutable(pool.db)
    assert (found["kind"], found["version"], found["served"]) == ("report", 2, [1])
    assert found["task_id"] == waiting.task_id
    assert pool.counters(waiting) == (0, 0, 0)
    reason = pool.db.run(tasks.unserved([waiting.task_id, first.task_id]))
    assert list(reason) == [waiting.task_id]
    assert "version 2 of report" in reason[waiting.task_id].reason

    pool.worker(app=NEW)
    assert ended(waiting) == "completed"
    assert unroutable(pool.db) == []
    both = [app.submit("report", {}) for app in (v1, v2) for _ in range(20)]
    newest = pool.submit("report")  # of a submitter without handlers
    assert [ended(each) for each in (*both, newest)] == ["completed"] * 41
    assert {pool.counters(each) for each in (waiting, first, newest, *both)} == {(1, 0, 0)}

    old.kill()
    last = v1.submit("report", {})
    assert ended(last) == "completed"
    assert f"new {last.task_id} v1" in pool.effects()
    assert f"new {newest.task_id} v2" in pool.effects()
    assert not [line for line in pool.effects("old") if not line.endswith(" v1")]


async def test_children_and_added_items_have_the_version_of_the_workers_handler(database_dsn: str) -> None:
    app, seen = App(dsn=database_dsn), list[int]()

    @app.task("leaf", version=3, accepts=range(2, 4))
    async def leaf(ctx: TaskContext) -> None:
        seen.append(ctx.version)

    @app.task("root", version=1)
    async def root(ctx: TaskContext) -> None:
        if ctx.attempt == 1:
            await ctx.expand([{"key": "a", "kind": "leaf"}, {"key": "b", "kind": "leaf", "version": 2}])
        await ctx.gather(await ctx.spawn("leaf"))

    handle = await asyncio.to_thread(app.submit, "root")
    async with serving(app, database_dsn):
        assert await outcome(handle) is not None
    assert sorted(seen) == [2, 3, 3]
