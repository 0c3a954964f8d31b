"""Versions: a task is pinned to one by its lane, and only workers that serve it claim it."""

import json
from uuid import UUID

import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, workers


def register(runner: Driver, versions: list[int], worker_id: int) -> engine.Worker:
    serves = {"queues": ["default"], "kinds": ["x"], "concurrency": 1, "versions": {"x": versions}}
    runner.run(
        workers.register_worker(
            worker_id, label="w", host="h", pid=1, process="p", version="0", role="worker", ttl_s=60,
            serves=json.dumps(serves),
        )
    )  # fmt: skip
    lanes = runner.run(workers.lanes_of(["default"], ["x"] * len(versions), versions))
    return engine.Worker(runner, worker_id, lanes)


def version(runner: Driver, task_id: str) -> list[int]:
    return [item.version for item in runner.run(tasks.task_items(task_id))]


def test_a_worker_claims_only_the_versions_it_serves(runner: Driver) -> None:
    old, new = register(runner, [1], 1), register(runner, [1, 2], 2)
    engine.submit(runner, "second", kind="x", version=2)
    engine.submit(runner, "none", kind="x", version=0)
    engine.submit(runner, "first", kind="x", version=1)
    assert [(item.task_id, item.version) for item in old.claim(5)] == [("first", 1)]
    (held,) = new.claim(5)
    assert (held.task_id, held.version) == ("second", 2)
    runner.run(items.fail(new.fence(held), engine.ERROR))
    runner.run(items.release(2, list[tuple[int, UUID]]()))
    assert version(runner, "second") == [2]
    engine.crash(runner, old)
    assert version(runner, "first") == [1]


def test_without_a_version_a_task_gets_the_newest_that_lives_else_lately_lived(runner: Driver) -> None:
    engine.submit(runner, "before", kind="x")
    register(runner, [1, 2], 1)
    new = register(runner, [3, 4], 2)
    engine.submit(runner, "both", kind="x")
    runner.run(workers.declare_dead([new.worker_id]))
    engine.submit(runner, "old", kind="x")
    runner.run(workers.declare_dead([1]))
    engine.submit(runner, "nobody", kind="x")
    assert [version(runner, each) for each in ("before", "both", "old", "nobody")] == [[0], [4], [2], [4]]


def test_each_way_in_pins_a_version(runner: Driver) -> None:
    register(runner, [5], 1)
    runner.run(tasks.submit_many(["a", "b"], "x", "t", ["{}", "{}"], version=3))
    listed = [{"key": key, "kind": "x", "version": pinned} for key, pinned in (("p", 1), ("q", None), ("r", 2))]
    runner.run(tasks.create_task("many", "t", items=json.dumps(listed)))
    more: list[tasks.NewItem] = [("s", "x", "{}", None, None, None, 4), ("t", "x", "{}", None, None, None, None)]
    runner.run(tasks.add_items("many", more))
    assert version(runner, "a") == version(runner, "b") == [3]
    assert version(runner, "many") == [1, 5, 2, 4, 5]


@pytest.mark.parametrize("served", [[], [1]])
def test_what_no_living_worker_runs_is_told_by_its_oldest_item(runner: Driver, served: list[int]) -> None:
    if served:
        register(runner, served, 1)
    for task_id in ("oldest", "younger"):
        engine.submit(runner, task_id, kind="x", version=2)
    found = runner.run(tasks.unserved(["oldest", "younger", "unknown"]))
    assert {task_id: (each.version, each.served) for task_id, each in found.items()} == {
        "oldest": (2, tuple(served)), "younger": (2, tuple(served)),
    }  # fmt: skip
    register(runner, [2], 2)
    assert runner.run(tasks.unserved(["oldest", "younger"])) == {}
