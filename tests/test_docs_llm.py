"""The example of docs/llm.md runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.worker.inprocess import outcome, serving

from agentos.core.llm import prices
from agentos.store.calls import budgets
from agentos.store.connect import AsyncDatabase

PAGE = Path(__file__).parents[1] / "docs" / "llm.md"


async def test_the_example_streams_is_counted_and_stays_in_its_budget(
    database_dsn: str, adb: AsyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "_given", {})
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.S)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102  the page's own code
    handle = names["app"].submit("explain", {"topic": "tides"}, task_id="t")
    async with serving(names["app"], database_dsn):
        assert await outcome(handle) == "Tides follow the moon."
    (used,) = await adb.run(budgets.usage_of(["model"], task_id="t"))
    assert (used.model, used.calls, str(used.cost.normalize())) == ("my-model", 1, "0.00008")
    assert {line.name for line in await adb.run(budgets.budget_of("t"))} == {"max_cost", "max_calls"}
