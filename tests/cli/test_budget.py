"""`agentos budget`, `agentos usage`, and the budget of `agentos submit`."""

import json
from decimal import Decimal
from typing import Any

import pytest
from tests.store import engine

from agentos.cli.__main__ import main
from agentos.store.calls import cache
from agentos.store.calls.cache import Estimate, PromptIdentity, Spent
from agentos.store.connect import Database


def agentos(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(args)
    said = capsys.readouterr()
    assert (ended.value.code or 0) == code, said
    return json.loads(said.out) if "--json" in args else said.out + said.err


def spend(db: Database, task_id: str) -> engine.Worker:
    worker = engine.register(db)
    (item,) = worker.claim()
    asked = PromptIdentity("a", task_id, "plan", "m", "0" * 64, "p")
    fence = worker.fence(item)
    reply = db.run(cache.cache_begin(asked, fence, worker.worker_id, 60, estimate=Estimate(10, Decimal(1))))
    assert reply.call_token is not None
    db.run(cache.cache_finish(asked, reply.call_token, fence, worker.worker_id, '"x"', Spent(3, 4, Decimal("0.7"))))
    refused = PromptIdentity("b", task_id, "plan", "m", "0" * 64, "p")
    db.run(cache.cache_begin(refused, fence, worker.worker_id, 60, estimate=Estimate(10, Decimal(5))))
    return worker


def test_a_budget_is_given_shown_and_raised(db: Database, capsys: pytest.CaptureFixture[str]) -> None:
    agentos(
        capsys, "submit", "shell", '{"command": "true"}', "--task-id", "t", "--max-cost", "2.50", "--max-calls", "9"
    )
    worker = spend(db, "t")
    shown = agentos(capsys, "budget", "t", "--json")
    assert {line["name"]: (line["most"], line["spent"]) for line in shown["limits"]} == {
        "max_cost": ("2.50", "0.7"), "max_calls": ("9", "1"),
    }  # fmt: skip
    assert engine.status(db, "t") == "waiting"
    assert "budget_exceeded" in agentos(capsys, "show", "t")
    assert agentos(capsys, "budget", "t", "--add-cost", "4", "--json")["woken"] == 1
    assert len(worker.claim()) == 1
    assert "max_calls" in agentos(capsys, "budget", "t")


def test_usage_is_told_apart_as_asked(db: Database, capsys: pytest.CaptureFixture[str]) -> None:
    engine.submit(db, "t")
    spend(db, "t")
    (line,) = agentos(capsys, "usage", "--task", "--json")
    assert (line["task_id"], line["model"], line["calls"], line["cost"]) == ("t", None, 1, "0.7")
    (line,) = agentos(capsys, "usage", "--day", "--of-task", "t", "--json")
    assert line["day"]
    assert "TOKENS IN" in agentos(capsys, "usage")
    assert agentos(capsys, "usage", "--of-model", "other", "--json") == []


@pytest.mark.parametrize(
    "args", [("--max-cost", "much"), ("--max-tokens", "-5"), ("--max-calls", "1", "--on-exceed", "panic")]
)
def test_a_budget_that_makes_no_sense_is_refused(
    db: Database, capsys: pytest.CaptureFixture[str], args: tuple[str, ...]
) -> None:
    assert "Fix:" in agentos(capsys, "submit", "shell", '{"command": "true"}', *args, code=2)
    assert "has no budget" in agentos(capsys, "budget", engine_task(db))
    agentos(capsys, "budget", "nowhere", code=5)


def engine_task(db: Database) -> str:
    engine.submit(db, "plain")
    return "plain"
