"""Queues that stand still, lanes of tenants, and priorities that age."""

from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import flow, items, tasks, workers
from agentos.store.errors import LanesChanged
from agentos.testing.clock import Clock


def served(runner: engine.Runs, *queues: str) -> flow.Served:
    return runner.run(flow.served_lanes(queues or ("default",), ["shell"], [0]))


def test_a_paused_queue_is_left_alone_by_every_worker_from_the_commit_on(runner: Driver) -> None:
    engine.submit(runner, "stands", queue="reports")
    engine.submit(runner, "goes")
    worker = engine.register(runner, queues=("default", "reports"))
    assert runner.run(flow.pause_queue("reports", "ops"))
    assert not runner.run(flow.pause_queue("reports", "ops")), "it is paused"
    with pytest.raises(LanesChanged):
        worker.claim(5)
    epoch = runner.run(workers.adopt(worker.worker_id)).claim_epoch
    lanes = tuple(each.lane for each in served(runner, "default", "reports").lanes)
    worker = engine.Worker(runner, worker.worker_id, lanes, epoch)
    assert [item.task_id for item in worker.claim(5)] == ["goes"]
    rows = {row.queue: row for row in runner.run(flow.list_queues())}
    assert (rows["reports"].ready, rows["reports"].paused_by, rows["default"].held) == (1, "ops", 1)
    assert rows["reports"].paused_at is not None
    assert runner.run(flow.resume_queue("reports"))
    assert not runner.run(flow.resume_queue("reports"))
    assert len(served(runner, "default", "reports").lanes) == 2


def test_what_runs_in_a_paused_queue_goes_on(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(flow.pause_queue("default"))
    assert worker.complete(item) == frozenset()
    assert engine.status(runner) == "completed"


def test_each_tenant_has_a_lane_and_an_idle_claim_tells_of_a_new_one(runner: Driver) -> None:
    engine.submit(runner, "a", tenant="acme")
    worker = engine.register(runner)
    before = served(runner)
    assert runner.run(flow.newest_lane()) == before.newest
    assert {each.tenant for each in before.lanes} == {"", "acme"}
    lanes = [each.lane for each in before.lanes]
    assert runner.run(items.claim_idle(worker.worker_id, 0, lanes, 5, [], before.newest)).items
    engine.submit(runner, "b", tenant="globex")
    with pytest.raises(LanesChanged):
        runner.run(items.claim_idle(worker.worker_id, 0, lanes, 5, [], before.newest))
    assert served(runner).newest > before.newest


def test_a_weight_is_told_with_the_lane_and_forgotten_at_one(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner, "a", tenant="acme")
    assert runner.run(flow.set_weight("acme", 3)) == 1
    assert {each.tenant: each.weight for each in served(runner).lanes} == {"": 1.0, "acme": 3.0}
    assert runner.run(flow.set_weight("acme", 1)) == 3
    assert engine.count(conn, "fair_weights") == 0


def test_a_step_of_priority_is_a_minute_of_waiting_so_nothing_starves(runner: Driver, clock: Clock) -> None:
    engine.submit(runner, "patient", priority=0)
    worker = engine.register(runner, ttl_s=100_000)
    clock.advance(5 * 60 - 10)
    for n in range(3):
        engine.submit(runner, f"urgent-{n}", priority=5)
    clock.advance(20)
    for n in range(3):
        engine.submit(runner, f"later-{n}", priority=5)
    order = [worker.claim()[0].task_id for _ in range(7)]
    assert order == ["urgent-0", "urgent-1", "urgent-2", "patient", "later-0", "later-1", "later-2"]


def test_a_lane_is_made_for_a_key_of_its_own(runner: Driver) -> None:
    plain = runner.run(flow.lane_of("q", "shell", 0))
    assert runner.run(flow.lane_of("q", "shell", 0, "acme", "k")) != plain
    assert not runner.run(flow.lane_is_missing("q", "shell", 0, "acme", "k"))
    assert runner.run(flow.lane_is_missing("q", "shell", 0, "acme", "other"))


def test_items_of_a_plan_go_to_the_lanes_of_their_keys(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    plan = '[{"key": "a", "kind": "shell", "limit_key": "k"}, {"key": "b", "kind": "shell", "tenant": "acme"}]'
    runner.run(tasks.create_task("t", "t", items=plan))
    found = conn.execute(
        "SELECT fairness_key, limit_key FROM agentos.work_items JOIN agentos.lanes USING (lane) ORDER BY seq"
    ).fetchall()
    assert found == [("", "k"), ("acme", "")]


def test_a_unique_key_is_taken_for_its_window_and_then_free(runner: Driver, clock: Clock) -> None:
    assert runner.run(tasks.submit_unique("k", "first", "shell", "0" * 64, 60)) is None
    clock.advance(50)
    assert runner.run(tasks.submit_unique("k", "second", "shell", "1" * 64, 60)) == "first"
    clock.advance(11)
    assert runner.run(tasks.submit_unique("k", "second", "shell", "1" * 64, 60)) is None
    assert runner.run(tasks.submit_unique("k", "third", "shell", "1" * 64, 60)) == "second"
