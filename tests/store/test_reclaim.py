"""What the coordinator takes back, moves on and puts right."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, coordinator, items, tasks, workers
from agentos.store.calls.coordinator import next_due_s, queues_of, reclaim_blocked
from agentos.store.errors import AgentOSError, DatabaseBusy


def test_the_leases_of_a_worker_that_stopped_beating_come_back(runner: Driver, clock: Any) -> None:
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    dying, living = engine.register(runner, ttl_s=15), engine.register(runner, ttl_s=60)
    lost, kept = dying.claim(2), living.claim(1)
    clock.advance(14)
    assert runner.run(workers.reclaim()) == ()
    clock.advance(2)
    taken = runner.run(workers.reclaim())
    assert {(t.item_id, t.worker_id, t.crashes, t.quarantined) for t in taken} == {
        (item.item_id, dying.worker_id, 1, False) for item in lost
    }
    assert runner.run(workers.reclaim()) == ()
    assert living.complete(*kept) == frozenset()
    assert dying.complete(*lost) == {item.item_id for item in lost}
    assert engine.status(runner, "task-0") == "running", "it has begun once, and goes on"


def test_after_a_start_of_the_server_every_worker_has_a_whole_ttl_to_beat(
    runner: Driver, clock: Any, conn: psycopg.Connection[Any]
) -> None:
    """The database was away for longer than the TTL: that is no crash of anybody's."""
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=15)
    worker.claim()
    clock.advance(40)
    assert runner.run(workers.leases_at_risk(worker.lanes)).leases == 1
    conn.execute(
        "CREATE OR REPLACE FUNCTION agentos.serving_since() RETURNS timestamptz LANGUAGE sql STABLE AS"
        " $$ SELECT clock_timestamp() + interval '38 seconds' $$"
    )
    assert runner.run(workers.reclaim()) == ()
    assert runner.run(workers.leases_at_risk(worker.lanes)).leases == 0, "nobody starts processes for all of them"
    runner.run(workers.beat(worker.worker_id, 0))
    clock.advance(14)
    assert runner.run(workers.reclaim()) == ()
    clock.advance(2)
    (taken,) = runner.run(workers.reclaim())
    assert taken.crashes == 1


@pytest.mark.parametrize("state", ["stopped", "dead"])
def test_leases_left_by_a_worker_that_is_gone_are_taken_at_once(runner: Driver, state: str) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=3600)
    worker.claim()
    if state == "dead":
        runner.run(workers.declare_dead([worker.worker_id]))
    else:
        runner.run(workers.retire_worker(worker.worker_id, state))
    assert len(runner.run(workers.reclaim())) == 1


def test_a_lease_whose_worker_row_is_not_there_is_taken(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    engine.register(runner).claim()
    conn.execute("DELETE FROM agentos.workers")
    assert len(runner.run(workers.reclaim())) == 1


def test_a_lease_past_its_own_end_is_taken_from_a_living_worker(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease", ttl_s=3600)
    runner.run(items.claim_one(worker.worker_id, 0, None, 10))
    clock.advance(9)
    assert runner.run(workers.reclaim()) == ()
    clock.advance(2)
    (taken,) = runner.run(workers.reclaim())
    assert taken.crashes == 1
    runner.run(workers.beat(worker.worker_id, 0))


def test_a_sweep_takes_at_most_its_limit_and_the_next_goes_on(runner: Driver) -> None:
    for n in range(5):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    worker.claim(5)
    runner.run(workers.declare_dead([worker.worker_id]))
    assert [len(runner.run(workers.reclaim(2))) for _ in range(4)] == [2, 2, 1, 0]


def test_an_item_that_crashed_runs_alone_until_it_passes(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    lane = worker.lanes[0]
    (item,) = worker.claim()
    engine.crash(runner, worker)
    second = engine.register(runner)
    assert second.claim() == ()
    (item,) = second.claim_solo()
    assert (item.lane, item.attempt, item.crashes, item.failures) == (-lane, 2, 1, 0)
    runner.run(items.fail(second.fence(item), engine.ERROR))
    clock.advance(10)
    assert runner.run(workers.promote()) == ("default",)
    assert second.claim() == ()
    (item,) = second.claim_solo()
    runner.run(items.release(second.worker_id, [(item.item_id, item.token)]))
    assert second.claim() == ()
    (item,) = second.claim_solo()
    assert (item.lane, item.crashes, item.failures) == (-lane, 1, 1)
    assert second.complete(item) == frozenset()


def test_an_item_is_quarantined_after_three_crashes_with_a_reason(runner: Driver) -> None:
    engine.submit(runner)
    for crash in (1, 2, 3):
        worker = engine.register(runner)
        assert worker.claim() or worker.claim_solo()
        (taken,) = engine.crash(runner, worker)
        assert (taken.crashes, taken.quarantined) == (crash, crash == 3)
    assert engine.place(runner) == "quarantined"
    progress = runner.run(tasks.task_progress("task-1"))
    assert progress.status == "failed"
    assert progress.reason is not None
    assert "died 3 times" in progress.reason
    assert runner.run(tasks.retry_task("task-1")) == 1
    (item,) = engine.register(runner).claim()
    assert (item.attempt, item.failures, item.crashes) == (4, 0, 0)


def test_a_quarantined_item_skips_what_needs_it(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"], "c": []})
    worker = engine.register(runner)
    worker.claim(2)
    runner.run(workers.declare_dead([worker.worker_id]))
    runner.run(workers.reclaim(max_crashes=1))
    assert engine.places(runner) == {"a": "quarantined", "b": "skipped", "c": "quarantined"}
    assert engine.status(runner) == "failed"


def test_crashes_are_charged_to_started_items_only(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    worker.claim()
    conn.execute("UPDATE agentos.lease_held SET started = false")
    (taken,) = engine.crash(runner, worker)
    assert taken.crashes == 0
    (again,) = engine.register(runner).claim()
    assert (again.attempt, again.crashes) == (2, 0)


def test_a_reclaim_can_wait_for_a_locked_lease_and_says_when_it_waited_in_vain(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    session = runner.session()
    session.begin()
    session.run(items.renew(worker.fence(item), 300))
    with pytest.raises(DatabaseBusy) as caught:
        runner.run(reclaim_blocked([item.item_id], 0.05))
    assert isinstance(caught.value, AgentOSError)
    session.rollback()
    runner.run(workers.declare_dead([worker.worker_id]))
    assert [t.item_id for t in runner.run(reclaim_blocked([item.item_id], 0.05))] == [item.item_id]


def test_leases_at_risk_are_those_of_workers_half_way_to_their_end(runner: Driver, clock: Any) -> None:
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    late, alive = engine.register(runner, ttl_s=20), engine.register(runner, ttl_s=600)
    late.claim(2)
    alive.claim(1)
    assert runner.run(workers.leases_at_risk(late.lanes)) == workers.AtRisk(leases=0, workers=2)
    clock.advance(11)
    assert runner.run(workers.leases_at_risk(late.lanes)) == workers.AtRisk(leases=2, workers=1)
    assert runner.run(workers.leases_at_risk(late.lanes, 1)).leases == 1
    assert runner.run(workers.leases_at_risk([987_654])).leases == 0
    runner.run(workers.beat(late.worker_id, 0))
    assert runner.run(workers.leases_at_risk(late.lanes)).leases == 0


def test_promote_moves_what_is_due_oldest_first_up_to_its_limit(runner: Driver, clock: Any) -> None:
    for n in range(4):
        engine.submit(runner, f"task-{n}", delay_s=10 * (n + 1), queue="q" if n % 2 else "default")
    assert runner.run(next_due_s()) == pytest.approx(10, abs=3)
    clock.advance(35)
    assert runner.run(workers.promote(1)) == ("default",)
    assert engine.place(runner, "task-0") == "ready"
    moved = runner.run(workers.promote())
    assert sorted(moved) == ["default", "q"]
    assert runner.run(workers.promote()) == ()
    assert engine.place(runner, "task-3") == "scheduled"
    clock.advance(10)
    runner.run(workers.promote())
    assert runner.run(next_due_s()) is None


def test_queues_of_items_are_named_once(runner: Driver) -> None:
    a, b, c = (engine.submit(runner, f"task-{n}", queue="q" if n else "default") for n in range(3))
    queues = runner.run(queues_of([a, b, c]))
    assert sorted(queues) == ["default", "q"]
    assert runner.run(queues_of([])) == ()


def test_repair_puts_counters_and_dependants_right_that_a_restore_left_behind(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.create(runner, "task-1", {"a": [], "b": ["a"]})
    engine.create(runner, "task-2", {"c": []})
    worker = engine.register(runner)
    assert runner.run(workers.repair()) == 0
    held = {item.key: item for item in worker.claim(2)}
    worker.complete(*held.values())
    # As if the end of `a` had not woken `b`, and the end of `c` had not been counted.
    conn.execute("DELETE FROM agentos.lease_ready")
    conn.execute(
        "INSERT INTO agentos.waiting (item_id, task_id, reason, pending, since, lane, rank, attempt, failures, crashes)"
        " SELECT item_id, task_id, 'dependencies', 1, now(), lane, rank, 0, 0, 0 FROM agentos.work_items"
        " WHERE key = 'b'"
    )
    conn.execute(
        "UPDATE agentos.task_heads SET open_items = 5, status = NULL, finished_at = NULL WHERE task_id = 'task-2'"
    )
    assert runner.run(workers.repair()) == 2
    assert engine.places(runner) == {"a": "completed", "b": "ready"}
    assert engine.status(runner, "task-2") == "completed"
    assert runner.run(workers.repair()) == 0


def test_the_lead_is_kept_by_its_holder_and_taken_over_when_it_ends(runner: Driver, clock: Any) -> None:
    assert runner.run(workers.lead("sweep", 1, 15)) == 1
    assert runner.run(workers.lead("sweep", 2, 15)) is None
    clock.advance(10)
    assert runner.run(workers.lead("sweep", 1, 15)) == 1
    clock.advance(10)
    assert runner.run(workers.lead("sweep", 2, 15)) is None
    clock.advance(6)
    assert runner.run(workers.lead("sweep", 2, 15)) == 2
    assert runner.run(workers.lead("sweep", 1, 15)) is None
    runner.run(workers.resign("sweep", 1))
    assert runner.run(workers.lead("sweep", 1, 15)) is None
    runner.run(workers.resign("sweep", 2))
    assert runner.run(workers.lead("sweep", 1, 15)) == 3


def test_waking_tells_those_who_listen(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    conn.execute("LISTEN agentos_wake")
    runner.run(workers.wake(["default", "gpu"]))
    heard = sorted(notice.payload for notice in conn.notifies(timeout=60, stop_after=2))
    assert heard == ["default", "gpu"]


def test_partitions_are_there_for_a_week_and_made_again_as_time_goes_on(
    runner: Driver, conn: psycopg.Connection[Any], clock: Any
) -> None:
    assert runner.run(workers.ensure_partitions()) == 0
    clock.advance(3 * 86_400)
    assert runner.run(workers.ensure_partitions()) == 6
    assert runner.run(workers.ensure_partitions()) == 0
    clock.advance(400 * 86_400)
    assert runner.run(workers.ensure_partitions()) == 18
    engine.submit(runner)
    worker = engine.register(runner)
    worker.complete(*worker.claim())
    partitions = conn.execute(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'agentos.outcomes'::regclass"
    ).fetchone()
    assert partitions == (9 + 3 + 9 + 1,)  # and that of what is kept


def test_partitions_are_made_once_by_many_at_once(runner: Driver, clock: Any) -> None:
    clock.advance(30 * 86_400)
    sessions = [runner.session() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda session: session.run(workers.ensure_partitions()), sessions))
    assert sorted(made) == [0, 0, 0, 0, 0, 18]


def crash_once(runner: Driver, worker: engine.Worker, *, headway: int | None) -> Any:
    """Claim the item, record a checkpoint if asked to, and die; what the reclaim says."""
    (item,) = worker.claim() or worker.claim_solo()
    if headway is not None:
        runner.run(
            checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id, ordinal=headway), worker.fence(item))
        )
    runner.run(workers.declare_dead([worker.worker_id]))
    (taken,) = runner.run(workers.reclaim())
    return taken


def test_an_item_that_makes_headway_is_not_quarantined_however_often_its_machines_go(runner: Driver) -> None:
    engine.submit(runner)
    for n in range(1, 7):
        taken = crash_once(runner, engine.register(runner), headway=n)
        assert (taken.crashes, taken.quarantined) == (1, False)
    for crashes in (2, 3):  # and from the moment it makes none, as always
        taken = crash_once(runner, engine.register(runner), headway=None)
        assert (taken.crashes, taken.quarantined) == (crashes, crashes == 3)


def test_headway_is_a_grace_that_ends(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    item_id = engine.submit(runner)
    crash_once(runner, engine.register(runner), headway=1)
    conn.execute(
        "SELECT agentos.note('task-1', %s, 'lease_reclaimed', n, 1, '{}') FROM generate_series(1, 50) n", [item_id]
    )
    assert [crash_once(runner, engine.register(runner), headway=n).crashes for n in (2, 3)] == [2, 3]


def test_repairs_are_made_in_slices_that_come_round(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    for n in range(25):
        engine.create(runner, f"task-{n:02}", {"a": [], "b": ["a"]})
    conn.execute("UPDATE agentos.task_heads SET open_items = 7")
    at, seen = coordinator.Slice(), []
    for _ in range(3):
        at = runner.run(coordinator.repair_slice(at, 10))
        seen.append(at.repaired)
    assert seen == [10, 10, 5]
    assert (at.next_task, at.next_item) == ("", -(2**63)), "the next one begins again"
    assert conn.execute("SELECT DISTINCT open_items FROM agentos.task_heads").fetchall() == [(2,)]
    assert runner.run(coordinator.repair_slice(at, 10)).repaired == 0
