"""Nothing -> ready, scheduled or waiting: how work comes into the pool."""

import json
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import flow, items, tasks, workers
from agentos.store.errors import InvalidDependency, InvalidValue, LeaseLost, TaskExists, UnknownTask


def test_a_submitted_item_is_ready_and_its_task_is_created(runner: Driver) -> None:
    item_id = runner.run(tasks.submit("task-1", "shell", "a title", '{"b":[1,2.50],"a":null}', priority=3))
    (item,) = runner.run(tasks.task_items("task-1"))
    assert (item.item_id, item.place, item.kind, item.queue, item.attempt) == (item_id, "ready", "shell", "default", 0)
    task = runner.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.title, task.payload) == ("created", "a title", {"b": [1, 2.5], "a": None})
    assert runner.run(tasks.list_tasks()) == (task,)
    assert runner.run(tasks.list_tasks(status="completed")) == ()


def test_a_delayed_item_is_scheduled_and_promoted_when_it_is_due(runner: Driver, clock: Any) -> None:
    engine.submit(runner, delay_s=60)
    assert engine.place(runner) == "scheduled"
    progress = runner.run(tasks.task_progress("task-1"))
    assert progress.next_run_in_s == pytest.approx(60, abs=5)
    assert runner.run(workers.promote()) == ()
    clock.advance(61)
    assert runner.run(workers.promote()) == ("default",)
    assert engine.place(runner) == "ready"


def test_a_higher_priority_overtakes_and_waiting_longer_overtakes_priority(runner: Driver, clock: Any) -> None:
    worker = engine.register(runner, ttl_s=3600)
    engine.submit(runner, "old")
    clock.advance(90)
    engine.submit(runner, "one-step", priority=1)
    engine.submit(runner, "two-steps", priority=2)
    assert [item.task_id for item in worker.claim(3)] == ["two-steps", "old", "one-step"]


def test_a_task_id_is_taken_once(runner: Driver) -> None:
    engine.submit(runner)
    with pytest.raises(TaskExists, match="task-1") as caught:
        engine.submit(runner)
    assert caught.value.hint
    with pytest.raises(TaskExists):
        runner.run(tasks.create_task("task-1", "again"))


def test_a_task_without_items_is_created_and_nothing_of_it_can_be_claimed(runner: Driver) -> None:
    assert runner.run(tasks.create_task("task-1", "a title", payload='{"x":1}')) == 0
    assert engine.status(runner) == "created"
    assert runner.run(tasks.new_task("task-1")) == runner.run(tasks.get_task("task-1"))
    assert engine.register(runner).claim(10) == ()
    assert runner.run(workers.repair()) == 0


def test_items_carry_what_was_asked_for(runner: Driver) -> None:
    plan = [
        {"key": "a", "kind": "llm", "payload": {"p": 1}, "queue": "gpu", "max_attempts": 2, "timeout_s": 1.5},
        {"kind": "shell", "depends_on": ["a"]},
    ]
    assert runner.run(tasks.create_task("task-1", "a title", items=json.dumps(plan), priority=1)) == 2
    first, second = runner.run(tasks.task_items("task-1"))
    assert (first.key, first.kind, first.queue, first.payload, first.max_attempts) == ("a", "llm", "gpu", {"p": 1}, 2)
    assert (second.seq, second.kind, second.queue, second.payload, second.max_attempts) == (
        2,
        "shell",
        "default",
        {},
        5,
    )
    assert (first.place, second.place) == ("ready", "waiting")
    (claimed,) = engine.register(runner, kinds=["llm"], queues=["gpu"]).claim(5)
    assert claimed.timeout_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ([{"key": "a", "kind": "k", "depends_on": ["nowhere"]}], "nowhere"),
        ([{"key": "a", "kind": "k", "depends_on": ["a"]}], "a"),
        ([{"key": "a", "kind": "k"}, {"key": "a", "kind": "k"}], "a"),
        ([{"key": "item-2", "kind": "k"}, {"kind": "k"}], "item-2"),
    ],
)
def test_a_plan_that_cannot_be_run_whole_is_refused_whole(
    runner: Driver, conn: psycopg.Connection[Any], plan: list[dict[str, Any]], named: str
) -> None:
    with pytest.raises(InvalidDependency, match=named) as caught:
        runner.run(tasks.create_task("task-1", "a title", items=json.dumps(plan)))
    assert caught.value.hint
    assert [engine.count(conn, t) for t in ("task_records", "task_heads", "work_items", "lease_ready")] == [0] * 4


def test_many_tasks_are_submitted_at_once_or_none_of_them(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    names = [f"task-{n}" for n in range(50)]
    made = runner.run(tasks.submit_many(names, "shell", "many", [f'{{"n":{n}}}' for n in range(50)]))
    assert len(set(made)) == 50
    claimed = engine.register(runner).claim(100)
    assert [(item.item_id, item.task_id, item.payload) for item in claimed] == [
        (made[n], names[n], {"n": n}) for n in range(50)
    ]
    for taken in (["new-1", "task-7", "new-2"], ["new-1", "new-2", "new-1"]):
        with pytest.raises(TaskExists, match=taken[1] if "task-7" in taken else "new-1"):
            runner.run(tasks.submit_many(taken, "shell", "many", ["{}"] * 3))
    for names, payloads in ((["a", "b"], ["{}"]), (["a"], ["{}", "{}"]), (["a", "b"], ["{}", "{"])):
        with pytest.raises(InvalidValue):
            runner.run(tasks.submit_many(names, "shell", "many", payloads))
    assert runner.run(tasks.submit_many([], "shell", "many", [])) == ()
    assert engine.count(conn, "task_records") == 50
    runner.run(tasks.submit_many(["late"], "shell", "many", ["{}"], delay_s=60))
    assert engine.place(runner, "late") == "scheduled"


def held_planner(runner: Driver) -> tuple[engine.Worker, items.ClaimedItem]:
    engine.submit(runner, kind="plan")
    worker = engine.register(runner, kinds=["plan", "shell"])
    return worker, worker.claim()[0]


def test_a_held_item_adds_items_to_its_task_and_saying_it_again_adds_nothing(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    plan = json.dumps([{"key": "a", "kind": "shell"}, {"key": "b", "kind": "shell", "depends_on": ["a"]}])
    assert runner.run(items.expand(worker.fence(planner), plan)) == 2
    assert runner.run(items.expand(worker.fence(planner), plan)) == 0
    assert engine.places(runner) == {"": "held", "a": "ready", "b": "waiting"}
    worker.complete(planner)
    assert engine.status(runner) == "running"
    for _ in "ab":
        worker.complete(*worker.claim(5))
    assert engine.status(runner) == "completed"


def test_saying_it_again_with_other_needs_changes_no_item_that_is_there(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    plan: list[dict[str, Any]] = [
        {"key": "a", "kind": "shell"},
        {"key": "c", "kind": "shell"},
        {"key": "b", "kind": "shell", "depends_on": ["a"]},
    ]
    runner.run(items.expand(worker.fence(planner), json.dumps(plan)))
    plan[2]["depends_on"] = ["c"]
    assert runner.run(items.expand(worker.fence(planner), json.dumps(plan))) == 0
    for item in worker.claim(5):
        if item.key == "c":
            worker.complete(item)
    assert engine.places(runner)["b"] == "waiting", "it needs a, and a has not run"


def test_an_item_added_later_waits_for_one_that_is_there_or_not_if_that_is_done(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    runner.run(items.expand(worker.fence(planner), '[{"key":"a","kind":"shell"},{"key":"b","kind":"shell"}]'))
    done, _ = sorted(worker.claim(2), key=lambda item: item.key or "")
    worker.complete(done)
    runner.run(
        items.expand(
            worker.fence(planner),
            '[{"key":"after-a","kind":"shell","depends_on":["a"]},{"key":"after-b","kind":"shell","depends_on":["b"]}]',
        )
    )
    assert engine.places(runner) == {
        "": "held",
        "a": "completed",
        "b": "held",
        "after-a": "ready",
        "after-b": "waiting",
    }


def test_an_item_added_after_what_it_needs_has_failed_is_skipped_and_the_task_ends(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    runner.run(items.expand(worker.fence(planner), '[{"key":"a","kind":"shell"}]'))
    (failing,) = worker.claim(2)
    runner.run(items.fail(worker.fence(failing), engine.ERROR, terminal=True))
    plan = '[{"key":"b","kind":"shell","depends_on":["a"]},{"key":"c","kind":"shell","depends_on":["b"]}]'
    assert runner.run(items.expand(worker.fence(planner), plan)) == 2
    assert engine.places(runner) == {"": "held", "a": "failed", "b": "skipped", "c": "skipped"}
    worker.complete(planner)
    assert engine.status(runner) == "failed"


def test_items_without_keys_are_not_added_because_a_second_attempt_could_not_know_them_again(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    with pytest.raises(InvalidDependency, match="key"):
        runner.run(items.expand(worker.fence(planner), '[{"kind":"shell"}]'))


def test_a_one_item_task_that_grew_is_finished_by_its_last_item(runner: Driver) -> None:
    worker, planner = held_planner(runner)
    runner.run(items.expand(worker.fence(planner), '[{"key":"a","kind":"shell"}]'))
    worker.complete(planner, result='{"planned":1}')
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.single, progress.open, progress.done) == ("running", False, 1, 1)
    worker.complete(*worker.claim())
    assert runner.run(tasks.task_progress("task-1")).ended


def test_nobody_adds_items_with_a_wrong_fence(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, planner = held_planner(runner)
    wrong = engine.stale(worker.fence(planner), token=engine.other_token())
    with pytest.raises(LeaseLost):
        runner.run(items.expand(wrong, '[{"key":"a","kind":"shell"}]'))
    assert engine.count(conn, "work_items") == 1
    assert engine.count(conn, "task_heads") == 0


def test_begin_run_gives_a_task_without_items_its_planning_item_once(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "make tea"))
    worker = engine.register(runner, role="runner")
    for _ in range(2):
        assert runner.run(tasks.begin_run("task-1", worker.worker_id)) is None
    (item,) = runner.run(tasks.task_items("task-1"))
    assert (item.kind, item.queue, item.payload) == ("plan", "@runner", {"goal": "make tea"})
    with pytest.raises(UnknownTask, match="nowhere"):
        runner.run(tasks.begin_run("nowhere", worker.worker_id))


def test_progress_counts_and_names_the_kinds_that_are_open(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    worker = engine.register(runner)
    worker.claim()
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.open, progress.done, progress.held) == ("running", 2, 0, 1)
    assert progress.kinds == ("shell",)
    assert not progress.ended
    with pytest.raises(UnknownTask):
        runner.run(tasks.task_progress("nowhere"))


def test_a_lane_is_missing_until_it_is_made_and_a_fixed_snapshot_is_never_told_so(runner: Driver) -> None:
    assert runner.run(flow.lane_is_missing("sums", "double"))
    session = runner.session()
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert not session.run(flow.lane_is_missing("sums", "double"))
    session.rollback()
    runner.run(workers.lanes_of(["sums"], ["double"]))
    assert not runner.run(flow.lane_is_missing("sums", "double"))
