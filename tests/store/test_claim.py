"""Ready -> held: who gets what, and who gets nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, tasks, workers
from agentos.store.errors import LanesChanged, WorkerDead
from agentos.store.run import Call


def test_a_claim_takes_up_to_its_limit_oldest_first(runner: Driver) -> None:
    for n in range(5):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    assert [item.task_id for item in worker.claim(3)] == ["task-0", "task-1", "task-2"]
    assert [item.task_id for item in worker.claim(3)] == ["task-3", "task-4"]
    assert worker.claim(3) == ()
    assert worker.claim(0) == ()


def test_a_claim_fills_up_from_the_next_lane_and_touches_no_other(runner: Driver) -> None:
    for kind in ("llm", "shell", "secret"):
        engine.submit(runner, f"{kind}-1", kind=kind)
        engine.submit(runner, f"{kind}-2", kind=kind)
    llm, shell = runner.run(workers.lanes_of(["default"], ["llm", "shell"]))
    worker = engine.register(runner)
    claimed = runner.run(items.claim(worker.worker_id, 0, [shell, llm], 3)).items
    assert sorted(item.task_id for item in claimed) == ["llm-1", "shell-1", "shell-2"]
    assert engine.place(runner, "secret-1") == "ready"


def test_lanes_are_made_once_for_each_queue_and_kind(runner: Driver) -> None:
    lanes = runner.run(workers.lanes_of(["a", "b"], ["x", "y"]))
    assert len(set(lanes)) == 4
    assert runner.run(workers.lanes_of(["a", "b"], ["x", "y"])) == lanes
    assert runner.run(workers.lanes_of([], ["x"])) == ()


def test_a_claim_brings_the_payload_as_it_was_stored(runner: Driver) -> None:
    payload = '{"big":123456789012345678901234567890,"small":1e-7,"text":"\\u2028 \\ud83c\\udf89"}'
    runner.run(tasks.submit("task-1", "shell", "t", payload, queue="q", timeout_s=2.5, max_attempts=7))
    worker = engine.register(runner, queues=["q"])
    (item,) = worker.claim()
    assert item.payload == {"big": 123456789012345678901234567890, "small": 1e-7, "text": "\u2028 🎉"}
    assert (item.queue, item.kind, item.task_id, item.seq, item.key) == ("q", "shell", "task-1", 1, None)
    assert (item.timeout_s, item.max_attempts) == (2.5, 7)


@pytest.mark.parametrize("end", ["dead", "stopped", "draining", "never registered", "an old epoch"])
def test_a_worker_that_is_not_alive_claims_nothing(runner: Driver, end: str) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    epoch = 0
    match end:
        case "dead":
            runner.run(workers.declare_dead([worker.worker_id]))
        case "stopped" | "draining":
            runner.run(workers.retire_worker(worker.worker_id, end))
        case "never registered":
            worker = engine.Worker(runner, 4711, worker.lanes)
        case _:
            epoch = runner.run(workers.adopt(worker.worker_id)).claim_epoch - 1
    calls: tuple[Call[Any], ...] = (
        items.claim(worker.worker_id, epoch, worker.lanes, 1),
        items.claim_task(worker.worker_id, epoch, "task-1", 1),
        items.claim_one(worker.worker_id, epoch, None, 60),
    )
    for call in calls:
        with pytest.raises(LanesChanged if end == "an old epoch" else WorkerDead) as caught:
            runner.run(call)
        assert caught.value.hint
    assert engine.place(runner) == "ready"


def test_a_beat_keeps_alive_and_a_late_one_is_told(runner: Driver, clock: Any) -> None:
    worker = engine.register(runner, ttl_s=15)
    for _ in range(3):
        clock.advance(10)
        assert runner.run(workers.beat(worker.worker_id, 3))[:2] == (frozenset(), frozenset())
        assert runner.run(workers.reclaim()) == ()
    clock.advance(16)
    runner.run(workers.reclaim())
    with pytest.raises(WorkerDead):
        runner.run(workers.beat(worker.worker_id, 0))


def test_a_draining_worker_beats_and_finishes_what_it_holds(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(workers.retire_worker(worker.worker_id, "draining"))
    runner.run(workers.beat(worker.worker_id, 0))
    assert runner.run(workers.reclaim()) == ()
    assert worker.complete(item) == frozenset()


def test_a_claim_in_flight_is_waited_for_by_adopt_and_found_by_it(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    """The reply to the claim is lost: the worker asks on another connection, while the claim may still commit."""
    engine.submit(runner)
    worker = engine.register(runner)
    in_flight, asking = runner.session(), runner.session()
    in_flight.begin()
    (claimed,) = worker.claim(on=in_flight)
    with ThreadPoolExecutor(1) as threads:
        adopting = threads.submit(asking.run, workers.adopt(worker.worker_id))
        engine.wait_until_blocked(conn, asking.pid)
        in_flight.commit()
        adopted = adopting.result()
    assert adopted.held == {claimed.item_id: claimed.token}
    with pytest.raises(LanesChanged):
        worker.claim()
    renewed = engine.Worker(runner, worker.worker_id, worker.lanes, adopted.claim_epoch)
    assert renewed.claim() == ()
    assert renewed.complete(claimed) == frozenset()


def test_a_beat_passes_a_claim_in_flight(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    in_flight = runner.session()
    in_flight.begin()
    worker.claim(on=in_flight)
    runner.run(workers.beat(worker.worker_id, 0))
    in_flight.commit()


def test_a_dead_worker_adopts_nothing(runner: Driver) -> None:
    worker = engine.register(runner)
    runner.run(workers.declare_dead([worker.worker_id]))
    with pytest.raises(WorkerDead):
        runner.run(workers.adopt(worker.worker_id))


def test_a_claim_in_flight_of_a_worker_that_expires_is_not_stranded(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=15)
    in_flight = runner.session()
    in_flight.begin()
    worker.claim(on=in_flight)
    clock.advance(16)
    assert runner.run(workers.reclaim()) == (), "the sweep passes by the locked row"
    in_flight.commit()
    assert len(runner.run(workers.reclaim())) == 1
    assert engine.place(runner) == "ready"


def test_rows_that_another_claim_has_locked_are_passed_by(runner: Driver) -> None:
    engine.submit(runner, "task-1")
    engine.submit(runner, "task-2")
    first, second = engine.register(runner), engine.register(runner)
    session = runner.session()
    session.begin()
    assert [item.task_id for item in first.claim(on=session)] == ["task-1"]
    assert [item.task_id for item in second.claim(2)] == ["task-2"]
    session.rollback()
    assert [item.task_id for item in second.claim(2)] == ["task-1"]


def test_a_duplicate_ready_row_is_dropped_and_said_and_stops_nobody(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.submit(runner, "task-1")
    engine.submit(runner, "task-2")
    conn.execute(
        "INSERT INTO agentos.lease_ready SELECT lane, rank - 1, seq, item_id, attempt, failures, crashes"
        " FROM agentos.lease_ready ORDER BY rank LIMIT 1"
    )
    worker = engine.register(runner)
    claimed = [item for _ in range(3) for item in worker.claim()]
    assert [item.task_id for item in claimed] == ["task-1", "task-2"]
    events = conn.execute("SELECT worker_id, data ->> 'count' FROM agentos.events WHERE event = 'duplicate_ready_rows'")
    assert events.fetchall() == [(worker.worker_id, "1")]


def test_a_runner_claims_the_items_of_its_task_in_any_lane_and_no_others(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": [], "c": ["a"]})
    engine.submit(runner, "task-2")
    worker = engine.register(runner, kinds=[], role="runner")
    claimed = runner.run(items.claim_task(worker.worker_id, 0, "task-1", 10))
    assert [item.key for item in claimed] == ["a", "b"]
    assert runner.run(items.claim_task(worker.worker_id, 0, "task-1", 10)) == ()
    runner.run(items.release(worker.worker_id, [(item.item_id, item.token) for item in claimed]))
    limited = runner.run(items.claim_task(worker.worker_id, 0, "task-1", 1, lease_s=30))
    assert [item.key for item in limited] == ["a"]


def test_a_runner_finds_items_in_the_solo_lane_too(runner: Driver) -> None:
    engine.submit(runner)
    first, second = engine.register(runner), engine.register(runner, role="runner")
    first.claim()
    engine.crash(runner, first)
    (item,) = runner.run(items.claim_task(second.worker_id, 0, "task-1", 5))
    assert (item.lane, item.crashes) == (-first.lanes[0], 1)


def test_a_single_lease_takes_any_kind_or_the_kinds_it_names_and_no_runners_plan(runner: Driver) -> None:
    engine.submit(runner, "task-1", kind="llm")
    runner.run(tasks.create_task("task-2", "to be planned"))
    worker = engine.register(runner, kinds=[], role="lease")
    runner.run(tasks.begin_run("task-2", worker.worker_id))
    assert runner.run(items.claim_one(worker.worker_id, 0, ["shell"], 60)) is None
    found = runner.run(items.claim_one(worker.worker_id, 0, ["shell", "llm"], 60))
    assert found is not None
    assert found.task_id == "task-1"
    assert runner.run(items.claim_one(worker.worker_id, 0, None, 60)) is None


def test_a_claim_tells_of_work_that_must_run_alone_and_takes_none_of_it(runner: Driver) -> None:
    engine.submit(runner)
    first, second = engine.register(runner), engine.register(runner)
    first.claim()
    engine.crash(runner, first)
    solo = [-lane for lane in second.lanes]
    claimed = runner.run(items.claim(second.worker_id, 0, second.lanes, 5, solo))
    assert (claimed.items, claimed.solo_waiting) == ((), True)
    (item,) = second.claim_solo()
    assert item.crashes == 1
    assert not runner.run(items.claim(second.worker_id, 0, second.lanes, 5, solo)).solo_waiting


def test_a_cancelled_item_is_claimed_as_cancelled_and_its_task_ends(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": []})
    runner.run(tasks.cancel_task("task-1", "not wanted"))
    worker = engine.register(runner)
    (item,) = worker.claim()
    assert item.cancelled
    assert runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled")) == "cancelled"
    assert engine.places(runner) == {"a": "cancelled"}


def test_the_worker_rows_of_a_host_are_listed_while_they_live(runner: Driver) -> None:
    worker, other = engine.register(runner), engine.register(runner)
    runner.run(workers.retire_worker(other.worker_id, "stopped"))
    (local,) = runner.run(workers.local_workers("test-host"))
    assert (local.worker_id, local.pid, local.process) == (worker.worker_id, 1, "p")
    assert runner.run(workers.local_workers("elsewhere")) == ()
    assert runner.run(workers.declare_dead([worker.worker_id, other.worker_id])) == 1
