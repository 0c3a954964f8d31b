"""Pause and resume: a flag on the head; items are parked when they are claimed, and nothing that wakes them is lost."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, waits, workers
from agentos.store.errors import LeaseLost, TaskCancelled, UnknownTask


def park(runner: Driver, worker: engine.Worker) -> bool:
    (item,) = worker.claim()
    assert item.paused
    return runner.run(items.park_paused(worker.fence(item)))


def test_a_ready_item_is_parked_when_it_is_claimed_and_ready_again_when_it_is_resumed(runner: Driver) -> None:
    item_id = engine.submit(runner)
    worker = engine.register(runner)
    assert runner.run(tasks.pause_task("task-1")) == "paused"
    assert runner.run(tasks.pause_task("task-1")) == "paused"
    assert (engine.place(runner), engine.status(runner)) == ("ready", "paused")
    assert park(runner, worker)
    assert (engine.place(runner), engine.status(runner)) == ("waiting", "paused")
    assert worker.claim() == ()
    assert runner.run(tasks.resume_task("task-1")) == (item_id,)
    assert runner.run(tasks.resume_task("task-1")) == ()
    (item,) = worker.claim()
    assert (item.paused, item.failures, item.crashes) == (False, 0, 0)
    worker.complete(item)
    assert engine.status(runner) == "completed"


def test_a_running_item_is_told_by_the_beat_and_may_complete(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert runner.run(tasks.pause_task("task-1")) == "running"
    assert runner.run(workers.beat(worker.worker_id, 0))[:2] == (frozenset(), frozenset({item.item_id}))
    assert worker.complete(item) == frozenset()
    assert engine.status(runner) == "completed"


def test_an_item_whose_task_was_resumed_meanwhile_is_not_parked(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    runner.run(tasks.pause_task("task-1"))
    (item,) = worker.claim()
    runner.run(tasks.resume_task("task-1"))
    assert not runner.run(items.park_paused(worker.fence(item)))
    assert engine.place(runner) == "held"


def test_a_parking_in_flight_and_a_resume_leave_nothing_parked(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    runner.run(tasks.pause_task("task-1"))
    (item,) = worker.claim()
    session, other = runner.session(), runner.session()
    session.begin()
    assert session.run(items.park_paused(worker.fence(item)))
    with ThreadPoolExecutor(1) as thread:
        resumed = thread.submit(other.run, tasks.resume_task("task-1"))
        engine.wait_until_blocked(conn, other.pid)
        session.commit()
        assert resumed.result() == (item.item_id,)
    assert engine.place(runner) == "ready"


def test_parking_is_fenced_and_a_cancelled_task_is_told_so(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    runner.run(tasks.pause_task("task-1"))
    (item,) = worker.claim()
    with pytest.raises(LeaseLost):
        runner.run(items.park_paused(engine.stale(worker.fence(item), token=uuid4())))
    runner.run(tasks.cancel_task("task-1"))
    with pytest.raises(TaskCancelled):
        runner.run(items.park_paused(worker.fence(item)))


def test_a_timer_and_a_signal_that_come_while_it_is_paused_are_not_lost(runner: Driver, clock: Any) -> None:
    engine.submit(runner, "late", delay_s=60)
    runner.run(tasks.pause_task("late"))
    assert engine.place(runner, "late") == "scheduled"
    worker = engine.register(runner, ttl_s=600)
    clock.advance(61)
    runner.run(workers.promote())
    assert park(runner, worker)

    item_id = engine.submit(runner)
    (item,) = worker.claim()
    call = engine.tool_call(uuid4().hex, "task-1", item_id, tool_name="@signal")
    assert runner.run(waits.wait(call, worker.fence(item), name="paid")).verdict == "parked"
    assert engine.status(runner) == "waiting"
    assert runner.run(tasks.pause_task("task-1")) == "paused"
    runner.run(waits.send_signal("task-1", "paid", "1", uuid4()))
    assert park(runner, worker)
    assert runner.run(tasks.resume_task("task-1")) == (item_id,)
    (item,) = worker.claim()
    assert runner.run(waits.wait(call, worker.fence(item), name="paid")).verdict == "finished"


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_a_paused_task_can_be_cancelled_and_its_deadline_counts(runner: Driver, clock: Any, end: str) -> None:
    if end == "cancel":
        engine.submit(runner)
    else:
        runner.run(tasks.with_deadline(tasks.submit("task-1", "shell", "t", "{}"), ["task-1"], 60))
    worker = engine.register(runner, ttl_s=600)
    runner.run(tasks.pause_task("task-1"))
    park(runner, worker)
    if end == "cancel":
        runner.run(tasks.cancel_task("task-1"))
    else:
        clock.advance(61)
        assert runner.run(tasks.expire_tasks()) == 1
    assert engine.status(runner) == ("cancelled" if end == "cancel" else "failed")
    assert engine.place(runner) == "cancelled"
    assert runner.run(tasks.pause_task("task-1")) == engine.status(runner)
    runner.run(tasks.retry_task("task-1"))
    (item,) = worker.claim()
    assert not item.paused, "a retry goes on"


def test_an_unknown_task_is_named(runner: Driver) -> None:
    with pytest.raises(UnknownTask):
        runner.run(tasks.pause_task("nowhere"))
    with pytest.raises(UnknownTask):
        runner.run(tasks.resume_task("nowhere"))
