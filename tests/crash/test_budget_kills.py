"""A worker is killed -9 around every commit of a budget: nothing is held back for ever, nothing is paid twice."""

import signal

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool, Sweeping

from agentos.core.app import App, Budget
from agentos.store.calls import budgets
from agentos.store.calls.budgets import Limits

APP = "tests.crash.budget_app:app"


def spent(pool: Pool, task_id: str) -> tuple[int, int]:
    (line,) = [line for line in pool.db.run(budgets.budget_of(task_id)) if line.name == "max_calls"]
    return int(line.spent), int(line.reserved)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_commit_that_parks_it_the_item_waits_in_one_place_and_goes_on(
    pool: Pool, sweeping: Sweeping, when: str
) -> None:
    handle = App(dsn=pool.dsn).submit("spends", budget=Budget(max_calls=1))
    fault = {"FAULT": f"cache_begin {when} 2"}  # the second call is refused: this one parks
    victim = pool.worker(app=APP, module="tests.crash.faulty_worker", env=fault, wait=False)
    assert victim.ended() == -signal.SIGKILL
    pool.worker("--solo", app=APP, wait=False) if when == "before" else pool.worker(app=APP, wait=False)
    until(lambda: handle.status() == "waiting")
    assert pool.rows("SELECT reason FROM agentos.waiting") == [("budget",)]
    assert pool.rows("SELECT 1 FROM agentos.misplaced_items") == []
    assert spent(pool, handle.task_id) == (1, 0)
    pool.db.run(budgets.raise_budget(handle.task_id, Limits(calls=2)))
    assert handle.result(60) == ["answer 0", "answer 1", "answer 2"]
    assert pool.effects("llm") == ["llm 0", "llm 1", "llm 2"]
    assert spent(pool, handle.task_id) == (3, 0)


@pytest.mark.parametrize(
    ("fault", "paid"),
    [("cache_begin after 1", 3), ("generate before 1", 3), ("cache_finish before 1", 4), ("cache_finish after 1", 3)],
)
def test_what_a_dead_worker_had_reserved_is_free_again(pool: Pool, sweeping: Sweeping, fault: str, paid: int) -> None:
    handle = App(dsn=pool.dsn).submit("spends", budget=Budget(max_calls=3))
    victim = pool.worker(app=APP, module="tests.crash.faulty_worker", env={"FAULT": fault}, wait=False)
    assert victim.ended() == -signal.SIGKILL
    pool.worker("--solo", app=APP, wait=False)
    assert handle.result(60) == ["answer 0", "answer 1", "answer 2"]
    assert len(pool.effects("llm")) == paid  # between the answer and its record nobody can know that it was paid
    assert spent(pool, handle.task_id) == (3, 0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
def test_killed_around_the_commit_of_a_snapshot_in_parts_it_is_there_whole_or_not_at_all(
    pool: Pool, sweeping: Sweeping, when: str, nth: int
) -> None:
    handle = App(dsn=pool.dsn).submit("talks")
    fault = {"FAULT": f"commit_parted {when} {nth}"}
    assert pool.worker(app=APP, module="tests.crash.faulty_worker", env=fault, wait=False).ended() == -signal.SIGKILL
    assert pool.row("SELECT count(*) FROM agentos.checkpoints") == (nth if when == "after" else nth - 1,)
    unnamed = (
        "SELECT 1 FROM agentos.blobs b WHERE NOT EXISTS (SELECT FROM agentos.blob_refs r WHERE r.sha256 = b.sha256)"
    )
    assert pool.rows(unnamed) == []
    pool.worker("--solo", app=APP, wait=False)
    assert handle.result(60) == [100_001] * 3
    assert pool.row("SELECT count(*) FROM agentos.checkpoints") == (3,)
