"""A handler adds items to its task, and an item reads what those it depends on returned; over both drivers."""

import json

from tests.drivers import Driver

from agentos.core.process import new_worker_id
from agentos.store.calls import items, tasks, workers
from agentos.store.calls.items import ClaimedItem


def worker(runner: Driver) -> int:
    worker_id = new_worker_id()
    serves = '{"queues": ["default"], "kinds": ["work"], "concurrency": 1}'
    runner.run(
        workers.register_worker(
            worker_id, label="w", host="h", pid=1, process="", version="0", role="worker", ttl_s=60, serves=serves
        )
    )  # fmt: skip
    return worker_id


def claim(runner: Driver, worker_id: int) -> dict[str | None, ClaimedItem]:
    lanes = runner.run(workers.lanes_of(["default"], ["work"]))
    return {item.key: item for item in runner.run(items.claim(worker_id, 0, lanes, 10)).items}


def complete(runner: Driver, worker_id: int, item: ClaimedItem, result: object) -> None:
    assert not runner.run(items.complete(worker_id, [(item.item_id, item.token, json.dumps(result))]))


def test_an_item_reads_the_results_of_those_it_depends_on_in_the_order_of_the_plan(runner: Driver) -> None:
    worker_id = worker(runner)
    runner.run(tasks.submit("t", "work", "t", "{}"))
    plan = claim(runner, worker_id)[None]
    more = [
        {"key": "b", "kind": "work"}, {"key": "a", "kind": "work"}, {"key": "other", "kind": "work"},
        {"key": "sum", "kind": "work", "depends_on": ["a", "b"]},
    ]  # fmt: skip
    assert runner.run(items.expand(plan.fence(worker_id), json.dumps(more))) == 4
    assert runner.run(items.expand(plan.fence(worker_id), json.dumps(more))) == 0
    complete(runner, worker_id, plan, None)
    first = claim(runner, worker_id)
    assert sorted(str(key) for key in first) == ["a", "b", "other"]
    complete(runner, worker_id, first["a"], {"n": 2**60})
    complete(runner, worker_id, first["b"], None)
    found = runner.run(items.needed_results(claim(runner, worker_id)["sum"].item_id))
    assert list(found.items()) == [("b", None), ("a", {"n": 2**60})]


def test_an_item_that_depends_on_nothing_has_no_results(runner: Driver) -> None:
    worker_id = worker(runner)
    runner.run(tasks.submit("t", "work", "t", "{}"))
    assert runner.run(items.needed_results(claim(runner, worker_id)[None].item_id)) == {}
