"""What a handler's first step finds in the database: whoever dies from then on is charged for its item."""

import asyncio
import json

import psycopg
import pytest
from tests.coordinator.daemon import until
from tests.worker.inprocess import serving

from agentos.core.app import App, TaskContext
from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.worker.pace import Pace

COUNT = 600
CHARGED = """SELECT h.started OR EXISTS (SELECT 1 FROM agentos.begun_claims b
    WHERE b.worker_id = h.worker_id AND b.claim_no = h.claim_no), h.claim_no > 0
  FROM agentos.lease_held h WHERE h.item_id = %s"""


async def test_no_handler_begins_before_its_claim_is_begun_for_good_and_no_mark_is_left_when_all_is_over(
    database_dsn: str, db: Database, conn: psycopg.Connection[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "ahead", 0)  # so that slots are free while what waits for them may not begin yet
    app, found = App(dsn=database_dsn), []

    @app.task("looks")
    async def looks(ctx: TaskContext) -> None:
        found.append(conn.execute(CHARGED, [ctx.item_id]).fetchone())

    db.run(tasks.submit_many(new_task_ids(COUNT), "looks", "a title", [json.dumps({})] * COUNT))
    async with serving(app, database_dsn, concurrency=4) as worker:
        while len(found) < COUNT or worker.held:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
        await asyncio.to_thread(until, lambda: not conn.execute("SELECT 1 FROM agentos.begun_claims").fetchall())
    assert {row and row[0] for row in found} == {True}
    assert sum(bool(row and row[1]) for row in found) > COUNT / 4  # else it shows nothing
