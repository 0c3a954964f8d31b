"""Tasks of many items: who is readied, who is skipped, and when the task ends; also when two end at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, workers
from agentos.store.calls.items import ClaimedItem

DIAMOND = {"top": [], "left": ["top"], "right": ["top"], "bottom": ["left", "right"]}


def by_key(claimed: tuple[ClaimedItem, ...]) -> dict[str, ClaimedItem]:
    return {item.key or "": item for item in claimed}


def test_a_chain_runs_in_order(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"], "c": ["b"]})
    worker = engine.register(runner)
    for key in "abc":
        (item,) = worker.claim(5)
        assert item.key == key
        assert engine.status(runner) == "running"
        worker.complete(item)
    assert engine.status(runner) == "completed"
    (task,) = runner.run(tasks.list_tasks(status="completed"))
    assert task.finished_at is not None


def test_a_diamond_joins_only_when_both_sides_are_done(runner: Driver) -> None:
    engine.create(runner, "task-1", DIAMOND)
    worker = engine.register(runner)
    worker.complete(*worker.claim(5))
    sides = by_key(worker.claim(5))
    assert set(sides) == {"left", "right"}
    worker.complete(sides["left"])
    assert worker.claim(5) == ()
    worker.complete(sides["right"])
    assert [item.key for item in worker.claim(5)] == ["bottom"]


def test_both_sides_in_one_batch_ready_the_join_once(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.create(runner, "task-1", DIAMOND)
    worker = engine.register(runner)
    worker.complete(*worker.claim(5))
    worker.complete(*worker.claim(5))
    assert engine.count(conn, "lease_ready") == 1
    worker.complete(*worker.claim(5))
    assert engine.status(runner) == "completed"


def test_a_fan_out_and_in_of_hundreds_is_readied_once_each(runner: Driver) -> None:
    leaves = {f"leaf-{n}": ["root"] for n in range(300)}
    engine.create(runner, "task-1", {"root": [], **leaves, "join": list(leaves)})
    worker = engine.register(runner)
    worker.complete(*worker.claim(5))
    seen = 0
    while claimed := worker.claim(100):
        seen += len(claimed)
        worker.complete(*claimed)
    assert seen == 301
    assert engine.status(runner) == "completed"


def test_a_batch_ends_items_of_many_tasks(runner: Driver) -> None:
    for n in range(5):
        engine.create(runner, f"task-{n}", {"a": [], "b": []})
        engine.submit(runner, f"single-{n}")
    worker = engine.register(runner)
    worker.complete(*worker.claim(100))
    names = [f"{kind}-{n}" for n in range(5) for kind in ("task", "single")]
    assert {engine.status(runner, name) for name in names} == {"completed"}


@pytest.mark.parametrize("key", ["top", "left"])
def test_what_needs_a_failed_item_is_skipped_all_the_way_down_and_the_rest_runs(runner: Driver, key: str) -> None:
    engine.create(runner, "task-1", {**DIAMOND, "after": ["bottom"], "beside": []})
    worker = engine.register(runner)
    ended: set[str] = set()
    while claimed := worker.claim(10):
        for item in claimed:
            ended.add(item.key or "")
            if item.key == key:
                runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
            else:
                worker.complete(item)
    skipped = {"bottom", "after"} | ({"left", "right"} if key == "top" else set())
    assert {k for k, place in engine.places(runner).items() if place == "skipped"} == skipped
    assert not ended & skipped
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.reason) == ("failed", f"{key}: it broke")


def test_a_retry_within_its_attempts_fails_nothing(runner: Driver, clock: Any) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    worker = engine.register(runner, ttl_s=3600)
    (item,) = worker.claim()
    runner.run(items.fail(worker.fence(item), engine.ERROR))
    assert engine.places(runner) == {"a": "scheduled", "b": "waiting"}
    clock.advance(10)
    runner.run(workers.promote())
    worker.complete(*worker.claim())
    worker.complete(*worker.claim())
    assert engine.status(runner) == "completed"


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_two_items_ended_at_once_by_two_workers_end_the_task(
    runner: Driver, conn: psycopg.Connection[Any], fails: bool
) -> None:
    engine.create(runner, "task-1", {"a": [], "b": []})
    one, two = engine.register(runner), engine.register(runner)
    (first,), (second,) = one.claim(), two.claim()
    session, other = runner.session(), runner.session()
    session.begin()
    one.complete(first, on=session)
    with ThreadPoolExecutor(1) as threads:
        end = items.fail(two.fence(second), engine.ERROR, terminal=True)
        ending = threads.submit(other.run, end) if fails else threads.submit(two.complete, second, on=other)
        engine.wait_until_blocked(conn, other.pid)
        session.commit()
        ending.result()
    assert engine.status(runner) == ("failed" if fails else "completed")
    assert runner.run(tasks.task_progress("task-1")).open == 0


def test_the_last_two_needs_ended_at_once_ready_the_dependant_once(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.create(runner, "task-1", {"a": [], "b": [], "c": ["a", "b"]})
    one, two = engine.register(runner), engine.register(runner)
    (first,), (second,) = one.claim(), two.claim()
    session, other = runner.session(), runner.session()
    session.begin()
    one.complete(first, on=session)
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(two.complete, second, on=other)
        engine.wait_until_blocked(conn, other.pid)
        session.commit()
        ending.result()
    assert [item.key for item in one.claim(5)] == ["c"]


def test_an_item_added_while_what_it_needs_ends_is_not_left_waiting(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.create(runner, "task-1", {"planner": [], "a": []})
    worker = engine.register(runner)
    held = by_key(worker.claim(2))
    session, other = runner.session(), runner.session()
    session.begin()
    session.run(items.expand(worker.fence(held["planner"]), '[{"key":"after-a","kind":"shell","depends_on":["a"]}]'))
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(worker.complete, held["a"], on=other)
        engine.wait_until_blocked(conn, other.pid)
        session.commit()
        ending.result()
    assert engine.places(runner)["after-a"] == "ready"


def test_two_batches_with_the_same_tasks_in_other_orders_do_not_deadlock(runner: Driver) -> None:
    for n in range(30):
        engine.create(runner, f"task-{n:02}", {"a": [], "b": []})
    one, two = engine.register(runner), engine.register(runner)
    mine, others = one.claim(30), two.claim(30)
    with ThreadPoolExecutor(2) as threads:
        ends = [
            threads.submit(one.complete, *mine, on=runner.session()),
            threads.submit(two.complete, *reversed(others), on=runner.session()),
        ]
        assert [end.result() for end in ends] == [frozenset(), frozenset()]
    assert {engine.status(runner, f"task-{n:02}") for n in range(30)} == {"completed"}


def test_a_crowd_of_workers_ends_a_crowd_of_tasks(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    """Eight workers, forty diamonds, completions, failures, releases and crashes at random: nothing stays open."""
    for n in range(40):
        engine.create(runner, f"task-{n:02}", DIAMOND)

    def work(number: int) -> None:
        session = runner.session()
        worker = engine.register(session)
        turn = 0
        while claimed := worker.claim(3) or worker.claim_solo(1):
            turn += 1
            for item in claimed[1:]:
                session.run(items.release(worker.worker_id, [(item.item_id, item.token)]))
            match (number + turn) % 7:
                case 0:
                    session.run(items.fail(worker.fence(claimed[0]), engine.ERROR, delay_s=0))
                    session.run(workers.promote())
                case 1 if claimed[0].crashes == 0:
                    engine.crash(session, worker)
                    worker = engine.register(session)
                case _:
                    worker.complete(claimed[0])

    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):  # a worker leaves when it finds nothing, though others may still ready something
            list(threads.map(work, range(4)))
            if engine.count(conn, "lease_ready") + engine.count(conn, "scheduled") == 0:
                break
            runner.run(workers.promote())
    statuses = {engine.status(runner, f"task-{n:02}") for n in range(40)}
    assert statuses <= {"completed", "failed"}
    assert runner.run(workers.repair()) == 0


def pages_of_an_end(db: Driver, conn: psycopg.Connection[Any], leaves: int) -> float:
    """Pages touched for each of `leaves` items that end, fifty at a time, before the one that needs them all."""
    task_id = f"task-{leaves}"
    engine.create(
        db, task_id, {**{f"leaf-{n}": [] for n in range(leaves)}, "join": [f"leaf-{n}" for n in range(leaves)]}
    )
    worker, pages = engine.register(db), 0
    while claimed := worker.claim(50):
        if claimed[0].key == "join":
            worker.complete(*claimed)
            break
        row = conn.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT agentos.complete(%s, %s, %s, %s)",
            (worker.worker_id, [i.item_id for i in claimed], [i.token for i in claimed], ["null"] * len(claimed)),
        ).fetchone()
        assert row is not None
        pages += row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"]
    assert engine.status(db, task_id) == "completed"
    return pages / leaves


@pytest.mark.parametrize("runner", ["psycopg"], indirect=True)
def test_a_fan_in_costs_each_of_its_items_the_same_however_many_they_are(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    few, many = pages_of_an_end(runner, conn, 100), pages_of_an_end(runner, conn, 1600)
    assert many < 2 * few, f"{few:.0f} pages an item of 100, {many:.0f} of 1,600"
