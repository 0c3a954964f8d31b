"""Held -> outcome, scheduled, ready or waiting."""

from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, waits, workers
from agentos.store.errors import LeaseLost, NotRetryable, TaskCancelled


def test_a_completed_item_completes_its_task_with_its_result(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert (item.attempt, item.failures, item.crashes, item.cancelled) == (1, 0, 0, False)
    assert engine.status(runner) == "running"
    assert worker.complete(item, result='{"n":12345678901234567890}') == frozenset()
    assert engine.place(runner) == "completed"
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.result, progress.single) == ("completed", {"n": 12345678901234567890}, True)


def test_many_items_complete_in_one_commit_and_the_fenced_off_are_named(runner: Driver) -> None:
    mine = [engine.submit(runner, f"task-{n}") for n in range(20)]
    worker = engine.register(runner)
    held = worker.claim(20)
    lost = held[7]
    runner.run(items.release(worker.worker_id, [(lost.item_id, lost.token)]))
    assert worker.complete(*held) == {lost.item_id}
    done = [engine.place(runner, f"task-{n}") for n in range(20)]
    assert [done.count(place) for place in ("completed", "ready")] == [19, 1]
    assert len(mine) == 20


def test_results_stay_with_their_items_whatever_the_order(runner: Driver) -> None:
    for n in range(10):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    held = worker.claim(10)
    done = [(item.item_id, item.token, f'"{item.task_id}"') for item in reversed(held)]
    assert runner.run(items.complete(worker.worker_id, done)) == frozenset()
    for n in range(10):
        assert runner.run(tasks.task_progress(f"task-{n}")).result == f"task-{n}"


@pytest.mark.parametrize("turned", [1, 3, 9])
def test_whoever_gives_the_items_out_of_order_completes_them_all_the_same(runner: Driver, turned: int) -> None:
    for n in range(10):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    held = worker.claim(10)
    lost = held[4]
    runner.run(items.release(worker.worker_id, [(lost.item_id, lost.token)]))
    order = [*held[turned:], *reversed(held[:turned]), held[6]]
    call = items.complete(worker.worker_id, [])
    given = ([i.item_id for i in order], [i.token for i in order], [f'"{i.task_id}"' for i in order])
    assert runner.run(call._replace(args=(worker.worker_id, *given))) == {lost.item_id}
    for item in held:
        found = runner.run(tasks.task_progress(item.task_id))
        assert found.result == (None if item is lost else item.task_id)


def test_a_pair_given_twice_or_beside_a_stale_one_ends_the_item_once_with_its_own_result(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (first,) = worker.claim()
    runner.run(items.release(worker.worker_id, [(first.item_id, first.token)]))
    (second,) = worker.claim()
    done = [
        (first.item_id, first.token, '"stale"'),
        (second.item_id, second.token, '"fresh"'),
        (second.item_id, second.token, '"fresh"'),
        (first.item_id, first.token, '"stale"'),
    ]
    runner.run(items.complete(worker.worker_id, done))
    assert engine.places(runner) == {"": "completed"}
    assert runner.run(tasks.task_progress("task-1")).result == "fresh"


def test_a_completion_whose_reply_was_lost_finds_itself_by_its_token(runner: Driver) -> None:
    engine.submit(runner)
    engine.submit(runner, "task-2")
    worker = engine.register(runner)
    done, open_ = worker.claim(2)
    worker.complete(done)
    assert worker.complete(done) == {done.item_id}
    asked = [(done.item_id, done.token), (open_.item_id, open_.token), (done.item_id, engine.other_token())]
    assert runner.run(items.ended_by(asked)) == {done.item_id}
    assert runner.run(items.ended_by([(done.item_id, engine.other_token())])) == frozenset()


def test_a_failure_schedules_the_item_again_later_and_later(
    runner: Driver, conn: psycopg.Connection[Any], clock: Any
) -> None:
    engine.submit(runner, max_attempts=4)
    worker = engine.register(runner, ttl_s=3600)
    delays = []
    for failures in range(3):
        (item,) = worker.claim()
        assert (item.attempt, item.failures, item.crashes) == (failures + 1, failures, 0)
        assert runner.run(items.fail(worker.fence(item), engine.ERROR)) == "scheduled"
        row = conn.execute(
            "SELECT extract(epoch FROM run_at - agentos.clock())::float8 FROM agentos.scheduled"
        ).fetchone()
        assert row is not None
        delays.append(row[0])
        clock.advance(60)
        runner.run(workers.promote())
    assert delays == [pytest.approx(seconds, rel=0.13, abs=0.3) for seconds in (1, 2, 4)]
    (item,) = worker.claim()
    assert runner.run(items.fail(worker.fence(item), engine.ERROR)) == "failed"
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.reason) == ("failed", "it broke")
    (row,) = runner.run(tasks.task_items("task-1"))
    assert (row.attempt, row.failures, row.error) == (4, 4, {"type": "ValueError", "message": "it broke"})


def test_a_terminal_failure_burns_no_retries_and_a_delay_can_be_given(runner: Driver) -> None:
    engine.submit(runner)
    engine.submit(runner, "task-2")
    worker = engine.register(runner)
    first, second = worker.claim(2)
    assert runner.run(items.fail(worker.fence(first), engine.ERROR, terminal=True)) == "failed"
    assert runner.run(items.fail(worker.fence(second), engine.ERROR, delay_s=0)) == "scheduled"
    assert runner.run(workers.promote()) == ("default",)


def test_an_item_with_thousands_of_attempts_can_still_fail(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner, max_attempts=32_000)
    worker = engine.register(runner)
    (item,) = worker.claim()
    conn.execute("UPDATE agentos.lease_held SET failures = 20000")
    assert runner.run(items.fail(worker.fence(item), engine.ERROR)) == "scheduled"
    row = conn.execute("SELECT extract(epoch FROM run_at - agentos.clock())::float8 FROM agentos.scheduled").fetchone()
    assert row is not None
    assert 250 < row[0] < 350


def test_a_released_item_is_ready_again_at_its_old_rank_and_nothing_is_charged(runner: Driver) -> None:
    engine.submit(runner, "old")
    engine.submit(runner, "young")
    worker = engine.register(runner)
    (old,) = worker.claim()
    assert runner.run(items.release(worker.worker_id, [(old.item_id, old.token)])) == {old.item_id}
    assert runner.run(items.release(worker.worker_id, [(old.item_id, old.token)])) == frozenset()
    (again,) = worker.claim()
    assert (again.item_id, again.attempt, again.failures, again.crashes) == (old.item_id, 2, 0, 0)
    assert again.token != old.token


def test_a_renewed_lease_ends_later(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease", ttl_s=60)
    held = runner.run(items.claim_one(worker.worker_id, 0, None, 10))
    assert held is not None
    clock.advance(8)
    until = runner.run(items.renew(worker.fence(held), 10))
    assert (until - held.claimed_at).total_seconds() == pytest.approx(18, abs=2)
    clock.advance(8)
    assert runner.run(workers.reclaim()) == ()
    assert worker.complete(held) == frozenset()


def test_a_renewed_lease_outlives_the_ttl_of_its_worker_row(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease", ttl_s=5)
    held = runner.run(items.claim_one(worker.worker_id, 0, ["shell"], 300))
    assert held is not None
    for _ in range(3):
        clock.advance(200)
        assert runner.run(workers.reclaim()) == ()
        runner.run(items.renew(worker.fence(held), 300))


def test_a_lease_of_a_dead_worker_is_not_renewed(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease")
    held = runner.run(items.claim_one(worker.worker_id, 0, None, 10))
    assert held is not None
    runner.run(workers.declare_dead([worker.worker_id]))
    with pytest.raises(LeaseLost):
        runner.run(items.renew(worker.fence(held), 10))


def test_an_item_that_asks_waits_for_the_answer_without_a_lease(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(engine.ask(worker.fence(item), "publish?", '{"items":2}'))
    assert (engine.place(runner), engine.status(runner)) == ("waiting", "waiting")
    assert engine.count(conn, "lease_held") == 0
    assert runner.run(engine.approval_of(item.item_id)) is None
    runner.run(waits.answer("task-1", approved=True, by="ana"))
    assert runner.run(engine.approval_of(item.item_id)) is True
    (again,) = worker.claim()
    assert (again.attempt, again.failures, again.crashes) == (2, 0, 0)
    with pytest.raises(NotRetryable):
        runner.run(waits.answer("task-1", approved=True, by="ana"))


def test_asking_again_needs_a_new_answer(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    for question, approved in (("publish?", True), ("delete it all?", False), ("delete it all?", True)):
        (item,) = worker.claim()
        runner.run(engine.ask(worker.fence(item), question, "{}"))
        assert runner.run(engine.approval_of(item.item_id)) is None
        runner.run(waits.answer("task-1", approved=approved, by="ana"))
        assert runner.run(engine.approval_of(item.item_id)) is approved


def test_a_cancelled_task_asks_nothing(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(tasks.cancel_task("task-1"))
    with pytest.raises(TaskCancelled):
        runner.run(engine.ask(worker.fence(item), "publish?", "{}"))
    assert engine.place(runner) == "held"
