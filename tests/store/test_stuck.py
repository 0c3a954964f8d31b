"""Work that stands still is told of once when it begins and once when it is over, over both drivers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from tests.drivers import Driver
from tests.store import engine
from tests.store.test_plans import Plans, plans_of, scans

from agentos.store.calls import stream, tasks, timeline
from agentos.store.calls.stuck import Change, look_for_stuck, stuck_counts
from agentos.store.connect import Database
from agentos.testing.clock import Clock

__all__ = ["plans_of"]
SILENT_S, AFTER_S = 3600.0, 10.0


def look(db: engine.Runs) -> tuple[Change, ...]:
    return db.run(look_for_stuck(SILENT_S, AFTER_S))


def told(db: engine.Runs, task_id: str = "task-1") -> list[str]:
    """The events of a task that say whether it stands still, the oldest first."""
    events = [each.event for each in db.run(timeline.task_events(task_id, 100))]
    return sorted(event for event in events if event in ("stuck", "unstuck"))


def test_what_nobody_serves_is_told_of_at_the_second_look_and_when_it_is_over(runner: Driver, clock: Clock) -> None:
    item_id = engine.submit(runner, kind="nobodys")
    assert look(runner) == ()
    assert look(runner) == (), "two looks in the same moment are one"
    assert runner.run(stuck_counts()) == {"silent": 0, "unroutable": 0}
    clock.advance(AFTER_S)
    (change,) = look(runner)
    assert (change.change, change.reason, change.task_id, change.item_id) == (
        "stuck", "unroutable", "task-1", item_id,
    )  # fmt: skip
    assert change.data["found"] == {"queue": "default", "kind": "nobodys", "version": 0, "served": []}
    assert runner.run(stuck_counts()) == {"silent": 0, "unroutable": 1}
    for _ in range(3):
        clock.advance(AFTER_S)
        assert look(runner) == ()
    engine.register(runner, kinds=["nobodys"], ttl_s=600)
    (over,) = look(runner)
    assert (over.change, over.task_id) == ("unstuck", "task-1")
    assert look(runner) == ()
    assert told(runner) == ["stuck", "unstuck"]
    assert runner.run(stuck_counts()) == {"silent": 0, "unroutable": 0}


def test_what_stood_still_for_a_moment_is_not_told_of(runner: Driver, clock: Clock) -> None:
    engine.submit(runner)
    look(runner)
    engine.register(runner, ttl_s=600)
    clock.advance(AFTER_S)
    assert look(runner) == ()
    assert told(runner) == []


def test_a_task_with_many_items_is_told_of_once_and_over_when_its_last_one_is(runner: Driver, clock: Clock) -> None:
    engine.create(runner, "task-many", {"a": [], "b": [], "c": []})
    look(runner)
    clock.advance(AFTER_S)
    assert [each.task_id for each in look(runner)] == ["task-many"]
    brief = engine.register(runner, ttl_s=5)
    (held,) = brief.claim()
    brief.complete(held)
    clock.advance(AFTER_S)
    assert look(runner) == (), "one of its items ended, and the worker has gone"
    assert told(runner, "task-many") == ["stuck"]


def test_a_task_that_is_cancelled_or_paused_stands_still_no_more(runner: Driver, clock: Clock) -> None:
    engine.submit(runner, "task-cancelled")
    engine.submit(runner, "task-paused")
    look(runner)
    clock.advance(AFTER_S)
    assert len(look(runner)) == 2
    runner.run(tasks.cancel_task("task-cancelled"))
    runner.run(tasks.pause_task("task-paused"))
    assert {(each.change, each.task_id) for each in look(runner)} == {
        ("unstuck", "task-cancelled"), ("unstuck", "task-paused"),
    }  # fmt: skip


def test_an_attempt_that_records_nothing_is_silent_until_it_records_something(runner: Driver, clock: Clock) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=1e6)
    (held,) = worker.claim()
    clock.advance(SILENT_S + 1)
    look(runner)
    clock.advance(AFTER_S)
    (change,) = look(runner)
    assert (change.change, change.reason, change.item_id) == ("stuck", "silent", held.item_id)
    assert change.data["found"]["host"] == "test-host"
    assert runner.run(stuck_counts()) == {"silent": 1, "unroutable": 0}
    assert look(runner) == (), "its own event is no sign of life"
    runner.run(stream.tell(worker.worker_id, [stream.Told(worker.fence(held), 1, "progress", {"done": 1})]))
    (over,) = look(runner)
    assert (over.change, over.reason) == ("unstuck", "silent")
    clock.advance(SILENT_S + 1)
    look(runner)
    clock.advance(AFTER_S)
    assert [each.change for each in look(runner)] == ["stuck"], "silent again"


def test_eight_that_look_at_once_tell_of_it_once(db: Database, clock: Clock) -> None:
    for n in range(20):
        engine.submit(db, f"task-{n}")
    look(db)
    clock.advance(AFTER_S)
    with ThreadPoolExecutor(8) as pool:
        changes = [each for found in pool.map(lambda _: look(db), range(8)) for each in found]
    assert sorted(each.task_id for each in changes) == sorted(f"task-{n}" for n in range(20))


def test_of_very_many_the_first_are_told_of_found_by_the_index(
    db: Database, conn: psycopg.Connection[Any], clock: Clock, plans_of: Plans
) -> None:
    for lane in range(12):
        engine.register(db, kinds=[f"kind-{lane}"], ttl_s=1)
        db.run(tasks.submit_many([f"task-{lane}-{n}" for n in range(300)], f"kind-{lane}", "t", ["1"] * 300))
    clock.advance(60)
    look(db)
    clock.advance(AFTER_S)
    assert len(look(db)) == 1000
    conn.execute("VACUUM ANALYZE agentos.lease_ready")
    plans = plans_of(look_for_stuck(SILENT_S, AFTER_S))
    assert {kind for kind, _ in scans(plans, "lease_ready")} <= {"Index Scan", "Index Only Scan"}
