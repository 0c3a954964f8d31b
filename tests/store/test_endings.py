"""Ends that meet: a cancel, a retry, a claim and an answer at the same time; what is forgotten in the end."""

import json

import psycopg
import pytest
from psycopg import sql
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, timeline, waits, workers
from agentos.store.errors import LeaseLost
from agentos.store.run import Call


def status_of(runner: Driver) -> str:
    return runner.run(tasks.task_progress("task-1")).status


def test_a_cancelled_task_ends_with_its_last_running_item_whatever_is_left_ready(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": []})
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert runner.run(tasks.cancel_task("task-1")) == "running"
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled"))
    assert status_of(runner) == "cancelled"
    (left,) = worker.claim()
    assert left.cancelled
    assert runner.run(items.fail(worker.fence(left), engine.ERROR, terminal=True, status="cancelled")) == "cancelled"


def test_an_item_claimed_as_cancelled_runs_after_all_when_its_task_was_retried_meanwhile(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": []})
    runner.run(tasks.cancel_task("task-1"))
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert item.cancelled
    runner.run(tasks.retry_task("task-1"))
    assert runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled")) == "ready"
    (again,) = worker.claim()
    assert not again.cancelled
    worker.complete(again)
    assert status_of(runner) == "completed"


def test_an_item_that_is_put_off_is_scheduled_uncharged_under_the_fence_only(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": []})
    worker, other = engine.register(runner), engine.register(runner)
    (item,) = worker.claim()
    with pytest.raises(LeaseLost):
        runner.run(items.put_off(other.fence(item), 60, engine.ERROR))
    runner.run(items.put_off(worker.fence(item), 60, engine.ERROR))
    (row,) = runner.run(tasks.task_items("task-1"))
    assert (row.place, row.attempt, row.failures, row.crashes) == ("scheduled", 1, 0, 0)
    with pytest.raises(LeaseLost):
        runner.run(items.put_off(worker.fence(item), 60, engine.ERROR))
    assert runner.run(timeline.task_events("task-1"))[-1].event == "put_off"


def test_an_item_of_a_task_that_was_given_up_is_claimed_only_to_be_ended(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": []})
    lost = engine.register(runner)
    lost.claim()
    runner.run(workers.declare_dead([lost.worker_id]))
    runner.run(tasks.give_up("task-1", engine.register(runner).worker_id, "enough"))
    runner.run(workers.reclaim())
    (item,) = engine.register(runner).claim_solo()
    assert item.cancelled
    assert status_of(runner) == "failed"


def test_a_rejected_plan_is_asked_about_again_after_a_retry(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": []})
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(engine.ask(worker.fence(item), "run it?", json.dumps({})))
    runner.run(waits.answer("task-1", False, "anna"))
    (item,) = worker.claim()
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    runner.run(tasks.retry_task("task-1"))
    assert runner.run(engine.approval_of(item.item_id)) is None


def test_workers_that_ended_long_ago_are_forgotten_and_no_others(runner: Driver) -> None:
    gone, holding, alive = (engine.register(runner) for _ in range(3))
    engine.submit(runner)
    assert holding.claim()
    for worker in (gone, holding):
        runner.run(workers.retire_worker(worker.worker_id, "stopped"))
    assert runner.run(workers.forget_workers(3600)) == 0
    assert runner.run(workers.forget_workers(0)) == 1
    left: Call[set[int]] = Call(
        "SELECT worker_id FROM agentos.workers", (), lambda rows: {row["worker_id"] for row in rows}
    )
    assert runner.run(left) == {holding.worker_id, alive.worker_id}


def test_a_role_without_ddl_registers_while_tomorrows_partition_is_there(conn: psycopg.Connection) -> None:
    conn.execute("CREATE ROLE agentos_test_dml")
    try:
        for right in ("USAGE ON SCHEMA", "EXECUTE ON ALL FUNCTIONS IN SCHEMA", "ALL ON ALL TABLES IN SCHEMA"):
            conn.execute(sql.SQL(f"GRANT {right} agentos TO agentos_test_dml"))
        row = conn.execute("SELECT to_char((agentos.clock() AT TIME ZONE 'UTC')::date + 7, 'YYYYMMDD')").fetchone()
        assert row is not None
        conn.execute(sql.SQL("DROP TABLE agentos.{}").format(sql.Identifier(f"events_{row[0]}")))
        conn.execute("SET ROLE agentos_test_dml")
        conn.execute("SELECT agentos.register_worker(7, 'w', 'h', 1, 'p', '0', 'worker', 15, '{}')")
        conn.execute("RESET ROLE")
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP OWNED BY agentos_test_dml")
        conn.execute("DROP ROLE agentos_test_dml")
