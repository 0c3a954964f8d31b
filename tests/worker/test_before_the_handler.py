"""The database does not answer while an attempt is made ready: its handler has done nothing, and is charged nothing."""

from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Sweeping

from agentos.core.app import App, TaskContext
from agentos.store import connect
from agentos.store.run import arun_call


@pytest.mark.parametrize(
    "function", ["outputs_of", "checkpoints_before", "note_resume", "ledger_recorded", "park_paused"]
)
async def test_a_call_without_an_answer_before_the_handler_begins_charges_nothing(
    database_dsn: str, conn: psycopg.Connection[Any], hurrying: Sweeping, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    app, lost = App(dsn=database_dsn), list[str]()

    @app.task("twice", max_attempts=2)
    async def twice(ctx: TaskContext) -> str:
        if ctx.snapshot is None:
            await ctx.checkpoint("iteration_end", "one")
            if function == "park_paused":
                handle.pause()
            raise ValueError("the first time")
        return "done"

    async def lossy(conn: Any, call: Any) -> Any:
        if f"agentos.{function}(" in call.sql and not lost:
            lost.append(function)
            if function == "park_paused":
                handle.resume()
            raise ConnectionError("not sent, on purpose")
        return await arun_call(conn, call)

    monkeypatch.setattr(connect, "arun_call", lossy)
    handle = app.submit("twice")
    async with serving(app, database_dsn):
        assert await outcome(handle) == "done"
    assert lost == [function]
    assert conn.execute("SELECT attempt, failures, crashes FROM agentos.outcomes").fetchone() == (3, 1, 0)
