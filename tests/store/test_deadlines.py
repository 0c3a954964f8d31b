"""Deadlines: wherever a task is then, it fails."""

from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine
from tests.store.test_wait_calls import wait_call

from agentos.store.calls import coordinator, items, tasks, workers


def due(runner: Driver, **how: Any) -> None:
    call = tasks.submit("task-1", "shell", "t", "{}", **how)
    runner.run(tasks.with_deadline(call, ["task-1"], 60))


@pytest.mark.parametrize("where", ["ready", "scheduled", "waiting", "held", "many"])
def test_at_its_deadline_a_task_fails_wherever_it_is(runner: Driver, clock: Any, where: str) -> None:
    if where == "many":
        call = tasks.create_task("task-1", "t", items='[{"key":"a","kind":"shell"}]')
        runner.run(tasks.with_deadline(call, ["task-1"], 60))
    else:
        due(runner, delay_s=3600.0 if where == "scheduled" else 0.0)
    assert runner.run(coordinator.next_due_s()) == pytest.approx(60, abs=3)
    worker = engine.register(runner, ttl_s=7200)
    held = worker.claim() if where in ("waiting", "held", "many") else ()
    if where == "waiting":
        runner.run(wait_call(worker, held[0], name="never"))
    assert runner.run(tasks.expire_tasks()) == 0
    clock.advance(61)
    assert runner.run(tasks.expire_tasks()) == 1
    if where in ("held", "many"):
        assert runner.run(workers.beat(worker.worker_id, 0)).cancelled == {held[0].item_id}
        runner.run(items.fail(worker.fence(held[0]), engine.ERROR, terminal=True, status="cancelled"))
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert task.status == "failed"
    assert (task.reason or "").startswith("DeadlineExceeded: it had not ended by ")
    assert runner.run(tasks.expire_tasks()) == 0
    if where == "ready":
        (late,) = worker.claim()
        assert late.cancelled
        runner.run(items.fail(worker.fence(late), engine.ERROR, terminal=True, status="cancelled"))
    runner.run(tasks.retry_task("task-1"))
    worker.complete(*worker.claim())
    assert engine.status(runner) == "completed", "a retry has no deadline"


def test_a_deadline_of_a_task_that_ended_changes_nothing(
    runner: Driver, conn: psycopg.Connection[Any], clock: Any
) -> None:
    due(runner)
    worker = engine.register(runner, ttl_s=7200)
    worker.complete(*worker.claim())
    clock.advance(61)
    assert runner.run(tasks.expire_tasks()) == 0
    assert engine.status(runner) == "completed"
    assert engine.count(conn, "deadlines") == 0
