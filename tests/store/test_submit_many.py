"""Nothing -> ready or scheduled, thousands of tasks in one statement."""

from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import tasks
from agentos.store.errors import (
    DatabaseError,
    InvalidDependency,
    InvalidInput,
    InvalidValue,
    NotRetryable,
    TaskExists,
    UnknownTask,
)


def submit_many(runner: Driver, *task_ids: str, **options: Any) -> tuple[int, ...]:
    payloads = [f'{{"n":{n}}}' for n, _ in enumerate(task_ids)]
    return runner.run(tasks.submit_many(task_ids, "shell", "a title", payloads, **options))


def nothing_there(conn: psycopg.Connection[Any]) -> bool:
    return [engine.count(conn, table) for table in ("task_records", "work_items", "lease_ready", "scheduled")] == [
        0
    ] * 4


def test_each_task_is_what_submit_would_have_made(runner: Driver) -> None:
    options: dict[str, Any] = {"queue": "gpu", "priority": 2, "max_attempts": 3, "timeout_s": 4.5}
    many = submit_many(runner, "a", "b", **options)
    one = runner.run(tasks.submit("c", "shell", "a title", '{"n":1}', **options))
    assert len({*many, one}) == 3
    rows = {task_id: runner.run(tasks.task_items(task_id))[0] for task_id in "abc"}
    assert [rows[task_id].item_id for task_id in "abc"] == [*many, one]
    assert [rows[task_id].payload for task_id in "abc"] == [{"n": 0}, {"n": 1}, {"n": 1}]
    told = {(r.kind, r.queue, r.place, r.key, r.seq, r.max_attempts, r.attempt) for r in rows.values()}
    assert told == {("shell", "gpu", "ready", None, 1, 3, 0)}
    assert {runner.run(tasks.task_progress(task_id)).single for task_id in "abc"} == {True}
    claimed = engine.register(runner, queues=["gpu"]).claim(5)
    assert [item.task_id for item in claimed] == ["a", "b", "c"]
    assert {item.timeout_s for item in claimed} == {4.5}


def test_delayed_ones_are_scheduled(runner: Driver, clock: Any) -> None:
    submit_many(runner, "a", "b", delay_s=60)
    assert [engine.place(runner, task_id) for task_id in "ab"] == ["scheduled", "scheduled"]
    progress = runner.run(tasks.task_progress("a"))
    assert progress.next_run_in_s == pytest.approx(60, abs=5)


def test_none_is_made_when_one_is_taken(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    submit_many(runner, "a")
    with pytest.raises(TaskExists, match="task a exists already") as caught:
        submit_many(runner, "b", "a", "c")
    assert caught.value.hint
    assert (
        engine.count(conn, "task_records") == engine.count(conn, "work_items") == engine.count(conn, "lease_ready") == 1
    )


def test_an_id_given_twice_is_refused_and_named(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(TaskExists, match="task b is to be made twice"):
        submit_many(runner, "a", "b", "b")
    assert nothing_there(conn)


def test_no_tasks_are_no_error(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    assert submit_many(runner) == ()
    assert nothing_there(conn)


@pytest.mark.parametrize(
    ("task_ids", "payloads"),
    [(["a", "b"], ['{"n":1}']), (["a"], ["{}", "{}"]), (["a", "b"], ["{}", "no json"]), (["a", ""], ["{}", "{}"])],
)
def test_what_does_not_fit_is_refused_whole(
    runner: Driver, conn: psycopg.Connection[Any], task_ids: list[str], payloads: list[str]
) -> None:
    with pytest.raises((InvalidValue, InvalidInput, DatabaseError)):
        runner.run(tasks.submit_many(task_ids, "shell", "t", payloads))
    assert nothing_there(conn)


def test_two_that_want_the_same_ids_at_once_do_not_both_get_them(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    first = runner.session()
    first.begin()
    first.run(tasks.submit_many(["a", "b"], "shell", "t", ["{}", "{}"]))
    first.commit()
    with pytest.raises(TaskExists, match="b"):
        submit_many(runner, "b", "c")
    first.close()
    assert engine.count(conn, "task_records") == 2


def test_a_transaction_rolled_back_leaves_nothing(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    session = runner.session()
    session.begin()
    session.run(tasks.submit_many(["a", "b"], "shell", "t", ["{}", "{}"]))
    session.rollback()
    session.close()
    assert nothing_there(conn)


def test_items_are_added_to_an_open_task_in_their_order(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "a title", items='[{"key":"first","kind":"shell"}]'))
    added: list[tasks.NewItem] = [
        ("b", "shell", '{"n":1}', None, None, None, None),
        ("a", "llm", "{}", "gpu", 2, 1.5, None),
    ]
    assert runner.run(tasks.add_items("task-1", added)) == 2
    rows = runner.run(tasks.task_items("task-1"))
    assert [(row.seq, row.key, row.kind, row.queue, row.max_attempts, row.place, row.payload) for row in rows] == [
        (1, "first", "shell", "default", 5, "ready", {}),
        (2, "b", "shell", "default", 5, "ready", {"n": 1}),
        (3, "a", "llm", "gpu", 2, "ready", {}),
    ]
    assert runner.run(tasks.task_progress("task-1")).open == 3
    worker = engine.register(runner, kinds=["shell", "llm"], queues=["default", "gpu"])
    worker.complete(*worker.claim(2))
    assert engine.status(runner) == "running"
    worker.complete(*worker.claim(2))
    assert engine.status(runner) == "completed"


def test_items_that_say_little_are_added_as_those_that_say_more(runner: Driver) -> None:
    texts = ['{"n":1}', '"ü"', "null"]
    runner.run(tasks.create_task("alike", "a title", items='[{"key":"first","kind":"shell"}]', priority=2))
    runner.run(tasks.create_task("each", "a title", items='[{"key":"first","kind":"shell"}]', priority=2))
    keys = ['"quoted"', "ü,{}", "c"]
    assert runner.run(tasks.add_alike("alike", "shell", keys, texts, queue="q", priority=2)) == 3
    new: list[tasks.NewItem] = [
        (key, "shell", text, None, None, None, None) for key, text in zip(keys, texts, strict=True)
    ]
    assert runner.run(tasks.add_items("each", new, queue="q", priority=2)) == 3
    found = {
        task_id: [
            (row.seq, row.key, row.kind, row.queue, row.max_attempts, row.place, row.payload, row.version)
            for row in runner.run(tasks.task_items(task_id))
        ]
        for task_id in ("alike", "each")
    }
    assert found["alike"] == found["each"]
    assert [row[1] for row in found["alike"]] == ["first", *keys]
    assert runner.run(tasks.task_progress("alike")).open == 4
    assert runner.run(tasks.add_alike("alike", "shell", ["d"], '[{"n":2}]')) == 1


def test_a_task_that_takes_no_more_items_says_so(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    item: list[tasks.NewItem] = [("a", "shell", "{}", None, None, None, None)]
    with pytest.raises(UnknownTask, match="nowhere"):
        runner.run(tasks.add_items("nowhere", item))
    engine.submit(runner, "single")
    engine.create(runner, "cancelled", {"x": []})
    runner.run(tasks.cancel_task("cancelled"))
    for task_id in ("single", "cancelled"):
        with pytest.raises(NotRetryable, match=task_id) as caught:
            runner.run(tasks.add_items(task_id, item))
        assert caught.value.hint
        with pytest.raises(NotRetryable, match=task_id):
            runner.run(tasks.add_alike(task_id, "shell", ["a"], ["{}"]))
    assert engine.count(conn, "work_items") == 2


@pytest.mark.parametrize("keys", [["a", "x"], ["b", "b"]])
def test_a_key_is_taken_once(runner: Driver, keys: list[str]) -> None:
    engine.create(runner, "task-1", {"x": []})
    with pytest.raises(InvalidDependency, match="task-1"):
        runner.run(tasks.add_items("task-1", [(key, "shell", "{}", None, None, None, None) for key in keys]))
    with pytest.raises(InvalidDependency, match="task-1"):
        runner.run(tasks.add_alike("task-1", "shell", keys, ["{}", "{}"]))
    assert runner.run(tasks.task_progress("task-1")).open == 1
