"""Cancel, retry, answer, give up: what people do to tasks."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, items, purge, tasks, waits, workers
from agentos.store.errors import NotRetryable, TaskHeld, TaskOpen, TaskPurged, UnknownTask
from agentos.store.run import Call


def test_a_task_nobody_runs_is_cancelled_at_once_with_its_reason(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    assert runner.run(tasks.cancel_task("task-1", "not wanted")) == "cancelled"
    assert engine.places(runner) == {"a": "ready", "b": "cancelled"}
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason) == ("cancelled", "not wanted")
    assert runner.run(tasks.cancel_task("task-1")) == "cancelled"


def test_a_running_task_is_cancelled_when_its_worker_ends_it(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert runner.run(tasks.cancel_task("task-1", "not wanted")) == "running"
    assert runner.run(workers.beat(worker.worker_id, 0)).cancelled == {item.item_id}
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled"))
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.reason, progress.open) == ("cancelled", "not wanted", 0)
    (row, _) = runner.run(tasks.task_items("task-1"))
    assert (row.status, row.failures) == ("cancelled", 0)


def test_a_one_item_task_is_cancelled_while_it_runs(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(tasks.cancel_task("task-1", "not wanted"))
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled"))
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason) == ("cancelled", "not wanted")


@pytest.mark.parametrize("left", ["released", "failed", "crashed"])
@pytest.mark.parametrize("single", [True, False])
def test_a_cancelled_task_ends_although_its_running_item_was_given_back(
    runner: Driver, left: str, single: bool
) -> None:
    if single:
        engine.submit(runner)
    else:
        engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(tasks.cancel_task("task-1", "not wanted"))
    assert runner.run(workers.repair()) == 0
    match left:
        case "released":
            runner.run(items.release(worker.worker_id, [(item.item_id, item.token)]))
        case "failed":
            runner.run(items.fail(worker.fence(item), engine.ERROR))
        case _:
            engine.crash(runner, worker)
    assert runner.run(workers.repair()) == 1
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason) == ("cancelled", "not wanted")
    assert runner.run(workers.repair()) == 0


@pytest.mark.parametrize("parked", ["scheduled", "approval"])
def test_a_parked_item_ends_with_its_task(runner: Driver, parked: str) -> None:
    engine.submit(runner, delay_s=60 if parked == "scheduled" else 0)
    if parked == "approval":
        worker = engine.register(runner)
        (item,) = worker.claim()
        runner.run(engine.ask(worker.fence(item), "sure?", "{}"))
    assert runner.run(tasks.cancel_task("task-1")) == "cancelled"
    assert engine.place(runner) == "cancelled"
    with pytest.raises(NotRetryable):
        runner.run(waits.answer("task-1", approved=True, by="ana"))


def test_a_task_that_ended_stays_as_it_ended(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    worker.complete(*worker.claim())
    assert runner.run(tasks.cancel_task("task-1")) == "completed"
    assert engine.status(runner) == "completed"
    with pytest.raises(NotRetryable, match="completed"):
        runner.run(tasks.retry_task("task-1"))


def test_a_completion_in_flight_and_a_cancel_agree_on_the_end(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    session = runner.session()
    session.begin()
    worker.complete(item, on=session)
    assert runner.run(tasks.cancel_task("task-1")) == "running"
    session.commit()
    assert engine.status(runner) == "completed"


def test_an_unknown_task_is_named(runner: Driver) -> None:
    calls: tuple[Call[Any], ...] = (
        tasks.cancel_task("nowhere"),
        tasks.retry_task("nowhere"),
        waits.answer("nowhere", approved=True, by="ana"),
        tasks.give_up("nowhere", 1, "too many iterations"),
    )
    for call in calls:
        with pytest.raises(UnknownTask, match="nowhere") as caught:
            runner.run(call)
        assert caught.value.hint
    assert runner.run(tasks.get_task("nowhere")) is None


def test_a_failed_task_is_retried_from_its_checkpoints_with_counters_at_zero(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"], "c": ["b"]})
    worker = engine.register(runner)
    worker.complete(*worker.claim())
    (item,) = worker.claim()
    runner.run(
        checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id, snapshot='{"n":1}'), worker.fence(item))
    )
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    assert engine.places(runner) == {"a": "completed", "b": "failed", "c": "skipped"}
    assert runner.run(tasks.retry_task("task-1")) == 2
    assert engine.places(runner) == {"a": "completed", "b": "ready", "c": "waiting"}
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason, task.finished_at) == ("running", None, None)
    (again,) = worker.claim()
    assert (again.key, again.attempt, again.failures) == ("b", 2, 0)
    (kept,) = runner.run(checkpoints.checkpoints_before("task-1", item_id=again.item_id))
    assert kept.snapshot_text == '{"n":1}'
    worker.complete(again)
    worker.complete(*worker.claim())
    assert engine.status(runner) == "completed"


def test_a_failed_one_item_task_is_retried(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    assert runner.run(tasks.retry_task("task-1")) == 1
    assert engine.status(runner) == "running"
    worker.complete(*worker.claim(), result='"at last"')
    assert runner.run(tasks.task_progress("task-1")).result == "at last"


def test_a_cancelled_task_goes_on_when_it_is_retried(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    runner.run(tasks.cancel_task("task-1"))
    runner.run(tasks.retry_task("task-1"))
    assert engine.places(runner) == {"a": "ready", "b": "waiting"}
    worker = engine.register(runner)
    for _ in "ab":
        (item,) = worker.claim()
        assert not item.cancelled
        worker.complete(item)
    assert engine.status(runner) == "completed"


def test_a_cancelled_task_whose_items_were_all_completed_is_completed_when_it_is_retried(runner: Driver) -> None:
    """Its last item was claimed before the cancel and completed after it."""
    engine.create(runner, "task-1", {"a": []})
    runner.run(tasks.cancel_task("task-1"))
    worker = engine.register(runner)
    worker.complete(*worker.claim())
    assert engine.status(runner) == "cancelled"
    assert runner.run(tasks.retry_task("task-1")) == 0
    assert engine.status(runner) == "completed"


def test_a_cancelled_task_without_items_is_open_again_when_it_is_retried(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "a title"))
    runner.run(tasks.cancel_task("task-1"))
    runner.run(tasks.retry_task("task-1"))
    assert engine.status(runner) == "created"


def test_two_retries_at_once_open_the_items_once(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.create(runner, "task-1", {"a": [], "b": []})
    worker = engine.register(runner)
    for item in worker.claim(2):
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    first, second = runner.session(), runner.session()
    first.begin()
    assert first.run(tasks.retry_task("task-1")) == 2
    with ThreadPoolExecutor(1) as threads:
        again = threads.submit(second.run, tasks.retry_task("task-1"))
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        with pytest.raises(NotRetryable):
            again.result()
    assert engine.count(conn, "lease_ready") == 2


def test_a_retry_of_a_one_item_task_by_two_at_once_opens_it_once(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    first, second = runner.session(), runner.session()
    first.begin()
    first.run(tasks.retry_task("task-1"))
    with ThreadPoolExecutor(1) as threads:
        again = threads.submit(second.run, tasks.retry_task("task-1"))
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        assert again.result() == 0
    assert engine.count(conn, "lease_ready") == 1


def test_a_task_that_runs_cannot_be_retried_or_answered(runner: Driver) -> None:
    engine.submit(runner)
    for call in (tasks.retry_task("task-1"), waits.answer("task-1", approved=True, by="ana")):
        with pytest.raises(NotRetryable) as caught:
            runner.run(call)
        assert "agentos show task-1" in (caught.value.hint or "")


def test_a_task_held_by_a_living_worker_is_not_begun_by_another(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker, other = engine.register(runner, ttl_s=15), engine.register(runner, role="runner", ttl_s=3600)
    worker.claim()
    with pytest.raises(TaskHeld, match="test-host"):
        runner.run(tasks.begin_run("task-1", other.worker_id))
    assert runner.run(tasks.begin_run("task-1", worker.worker_id)) is None
    clock.advance(16)
    assert runner.run(tasks.begin_run("task-1", other.worker_id)) is None


@pytest.mark.parametrize("ended", ["completed", "failed", "cancelled"])
def test_a_task_that_ended_is_not_begun(runner: Driver, ended: str) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    if ended == "cancelled":
        runner.run(tasks.cancel_task("task-1"))
    elif ended == "completed":
        worker.complete(*worker.claim())
    else:
        (item,) = worker.claim()
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    assert runner.run(tasks.begin_run("task-1", worker.worker_id)) == ended


def test_a_runner_that_gives_up_fails_everything_that_is_open(runner: Driver, clock: Any) -> None:
    engine.create(runner, "task-1", {"a": [], "b": [], "c": ["a"], "d": []})
    worker = engine.register(runner, role="runner", ttl_s=3600)
    done, late, _ = worker.claim(3)
    worker.complete(done)
    runner.run(items.fail(worker.fence(late), engine.ERROR, delay_s=60))
    engine.crash(runner, worker)
    again = engine.register(runner, role="runner")
    assert runner.run(tasks.give_up("task-1", again.worker_id, "too many iterations")) == 3
    assert sorted(engine.places(runner).values()) == ["completed", "failed", "failed", "failed"]
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason) == ("failed", "too many iterations")
    assert runner.run(tasks.retry_task("task-1")) == 3


def test_a_task_that_ended_is_not_given_up(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    worker.complete(*worker.claim(), result="1")
    assert runner.run(tasks.give_up("task-1", worker.worker_id, "too many iterations")) == 0
    assert engine.status(runner) == "completed"


def test_an_ended_task_is_purged_and_cannot_be_retried(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    with pytest.raises(TaskOpen, match=r"task-1 is created"):
        runner.run(purge.purge_task("task-1", "ann"))
    runner.run(tasks.cancel_task("task-1", "not wanted"))
    assert runner.run(purge.purge_task("task-1", "ann")) == 1
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.reason, progress.purged_at is None) == ("cancelled", "purged", False)
    with pytest.raises(TaskPurged):
        runner.run(tasks.retry_task("task-1"))
    worker = engine.register(runner)
    (item,) = worker.claim()  # its ready row is found when it is claimed, as ever
    assert (item.cancelled, item.payload) == (True, None)
    with pytest.raises(UnknownTask):
        runner.run(purge.purge_task("nobody", "ann"))
