"""A worker is killed -9 before, while and after an item is parked on a doubt: it asks once, each effect is once."""

from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, TaskContext
from agentos.testing import CRASH_TIMES, Pool, crash_at


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_killed_while_it_asks_the_item_is_parked_in_the_end_and_asks_once(
    agentos_pool: Pool, tmp_path: Path, when: str
) -> None:
    log, app = tmp_path / "log", App()

    @app.tool("charge", on_doubt="ask")
    async def charge(arguments: Any) -> dict[str, Any]:
        with log.open("a") as file:
            file.write("charged\n")
        return {"charged": 1}

    @app.task("order")
    async def order(ctx: TaskContext) -> dict[str, Any]:
        return await ctx.tool("charge")

    handle = app.submit("order")
    with crash_at("before:ledger_finish"):
        agentos_pool.drain(app)
    with crash_at(f"{when}:ask_doubt"):
        agentos_pool.drain(app)
    agentos_pool.drain(app)
    assert handle.status() == "waiting"
    assert agentos_pool.rows("SELECT count(*) FROM agentos.doubts") == [(1,)]
    assert agentos_pool.rows("SELECT count(*) FROM agentos.events WHERE event = 'asked_about_doubt'") == [(1,)]
    handle.resolve("done", {"charged": 1})
    agentos_pool.drain(app)
    assert handle.result(0) == {"charged": 1}
    assert log.read_text() == "charged\n"
