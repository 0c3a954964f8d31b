"""A submit hands its item to a worker that waits: to whom, to whom not, and what races with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from tests.coordinator.daemon import until
from tests.drivers import Driver, Session
from tests.store import engine
from tests.store.test_plans import LIES, Plans, plans_of, scans
from tests.store.test_scale import FILL

from agentos.core.wake import waker_of
from agentos.store.calls import flow, items, tasks, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import Database, connect
from agentos.store.direct import form_of
from agentos.store.run import Call
from agentos.testing.clock import Clock

__all__ = ["plans_of"]

ROOM = 2
STANDS_BY = """SELECT count(*) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
READ = "SELECT pg_stat_get_xact_tuples_returned('agentos.lease_held_handed'::regclass)"


def handing(task_id: str = "task-1", kind: str = "shell", **options: object) -> Call[int]:
    """The submit that a program makes after a pause. Of a version: without one the lane may have to be looked for."""
    call = tasks.submit(task_id, kind, "a title", "{}", version=0, **options)  # type: ignore[arg-type]
    return Call(tasks.HAND_OVER, call.args, call.read)


def waiting(runner: Driver, *, room: int = ROOM) -> tuple[engine.Worker, Session]:
    """A worker that offers its lanes and stands by, and the session that says so."""
    worker, session = engine.register(runner), runner.session()
    assert runner.run(workers.offer(worker.worker_id, 0, worker.lanes, room))
    assert session.run(workers.stand_by(worker.worker_id, waits=True))
    return worker, session


def handed(runner: Driver | Session, worker: engine.Worker, above: int = 0, *known: int) -> tuple[ClaimedItem, ...]:
    return runner.run(items.handed(worker.worker_id, above, known))


def test_the_item_is_held_by_the_worker_that_waits_with_its_attempt_counted_and_is_completed_as_any(
    runner: Driver,
) -> None:
    worker, _ = waiting(runner)
    item_id = runner.run(handing(priority=3, tenant=""))
    (item,) = handed(runner, worker)
    assert (item.item_id, item.task_id, item.kind, item.attempt, item.crashes) == (item_id, "task-1", "shell", 1, 0)
    assert (item.payload, item.cancelled, item.paused, item.queue) == ({}, False, False, "default")
    assert worker.claim() == ()
    assert worker.complete(item) == frozenset()
    assert engine.status(runner) == "completed"


def test_an_item_that_is_known_is_not_looked_for_again(runner: Driver) -> None:
    worker, _ = waiting(runner)
    first, second = (runner.run(handing(f"task-{n}")) for n in range(2))
    assert [item.item_id for item in handed(runner, worker, 0, first)] == [second]
    assert [item.item_id for item in handed(runner, worker, first)] == [second]
    assert handed(runner, worker, second) == ()


def test_an_idle_claim_tells_of_what_was_handed_over_and_takes_nothing_before(runner: Driver) -> None:
    worker, _ = waiting(runner)
    item_id = runner.run(handing())
    engine.submit(runner, "ready")
    newest = runner.run(flow.newest_lane())

    def idle(above: int, *known: int) -> items.Claimed:
        return runner.run(items.claim_idle(worker.worker_id, 0, worker.lanes, 5, [], newest, above, known))

    found = idle(0)
    assert (found.items, found.handed, found.solo_waiting) == ((), True, False)
    assert [item.task_id for item in idle(0, item_id).items] == ["ready"]
    assert not idle(item_id).handed


def test_the_wake_up_behind_it_tells_the_worker_that_got_it_or_else_the_queue(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    worker, says = waiting(runner)
    conn.execute("LISTEN agentos_wake")
    submitter = runner.session()
    for n in range(2):
        submitter.run(handing(f"handed-{n}"))
        submitter.run(workers.wake_behind("default"))
        says.run(workers.stand_by(worker.worker_id, waits=False))
        submitter.run(handing(f"ready-{n}"))
        submitter.run(workers.wake_behind("default"))
        says.run(workers.stand_by(worker.worker_id, waits=True))
    told = [notice.payload for notice in conn.notifies(timeout=10, stop_after=4)]
    assert told == [workers.handed_to(worker.worker_id), "default"] * 2


def test_a_wake_up_behind_what_was_handed_to_nobody_tells_the_queue_whatever_the_session_did_before(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    worker, _ = waiting(runner)
    conn.execute("LISTEN agentos_wake")
    submitter = runner.session()
    submitter.run(handing())
    submitter.run(workers.wake_behind("default"))
    submitter.run(tasks.submit_many(["many-1", "many-2"], "shell", "a title", ["{}", "{}"], version=0))
    submitter.run(workers.wake_behind("default"))
    submitter.run(handing("later", delay_s=60.0))
    submitter.run(workers.wake_behind("default"))
    told = [notice.payload for notice in conn.notifies(timeout=10, stop_after=3)]
    assert told == [workers.handed_to(worker.worker_id), "default", "default"]


def _drains(runner: Driver, worker: engine.Worker) -> None:
    runner.run(workers.retire_worker(worker.worker_id, "draining"))


def _is_dead(runner: Driver, worker: engine.Worker) -> None:
    runner.run(workers.declare_dead([worker.worker_id]))


def _is_limited(runner: Driver, _worker: engine.Worker) -> None:
    runner.run(flow.set_limit("queue", "default", "concurrency", 10))


def _is_paused(runner: Driver, _worker: engine.Worker) -> None:
    runner.run(flow.pause_queue("default"))


def _withdrew(runner: Driver, worker: engine.Worker) -> None:
    runner.run(workers.offer(worker.worker_id, 0, [], ROOM))


def _has_enough(runner: Driver, _worker: engine.Worker) -> None:
    for n in range(ROOM):
        runner.run(handing(f"before-{n}"))


@pytest.mark.parametrize("of_it", [_drains, _is_dead, _is_limited, _is_paused, _withdrew, _has_enough])
def test_nothing_is_handed_to_who_waits_though_he(
    runner: Driver, of_it: Callable[[Driver, engine.Worker], None]
) -> None:
    worker, _ = waiting(runner)
    of_it(runner, worker)
    runner.run(handing())
    assert engine.place(runner) == "ready"


@pytest.mark.parametrize("seconds", [8, 16])
def test_who_has_missed_a_beat_gets_nothing_nor_who_has_expired(runner: Driver, clock: Clock, seconds: float) -> None:
    worker, _ = waiting(runner)
    clock.advance(seconds)
    runner.run(handing("late"))
    assert engine.place(runner, "late") == "ready"
    if seconds < 15:
        runner.run(workers.beat(worker.worker_id, 0))
        runner.run(handing("beats"))
        assert engine.place(runner, "beats") == "held"


def test_nothing_is_handed_over_that_is_for_later_or_of_another_lane_or_when_nobody_waits(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    worker, says = waiting(runner)
    runner.run(handing("later", delay_s=60.0))
    runner.run(handing("other", kind="other"))
    runner.run(handing("theirs", tenant="acme"))
    says.run(workers.stand_by(worker.worker_id, waits=False))
    runner.run(handing("stood down"))
    assert not says.run(workers.stand_by(worker.worker_id, waits=False)), "said twice it is not said"
    says.run(workers.stand_by(worker.worker_id, waits=True))
    says.close()
    until(lambda: conn.execute(STANDS_BY).fetchone() == (0,), what="the server has seen that the session ended")
    runner.run(handing("session ended"))
    names = ("later", "other", "theirs", "stood down", "session ended")
    assert [engine.place(runner, name) for name in names] == ["scheduled"] + ["ready"] * 4


def test_a_transaction_of_a_fixed_snapshot_hands_nothing_over(runner: Driver) -> None:
    waiting(runner)
    session = runner.session()
    session.execute("SET default_transaction_isolation = 'repeatable read'")
    session.run(handing())
    assert engine.place(runner) == "ready"


def test_who_looked_before_a_pause_offers_nothing_until_he_has_looked_again(runner: Driver) -> None:
    worker, _ = waiting(runner)
    runner.run(flow.pause_queue("another"))
    assert not runner.run(workers.offer(worker.worker_id, 0, worker.lanes, ROOM))
    runner.run(handing("before"))
    assert runner.run(workers.offer(worker.worker_id, 1, worker.lanes, ROOM))
    runner.run(handing("after"))
    assert (engine.place(runner, "before"), engine.place(runner, "after")) == ("ready", "held")


def test_an_adoption_leaves_the_offers_as_they_are(runner: Driver) -> None:
    worker, _ = waiting(runner)
    runner.run(workers.adopt(worker.worker_id))
    runner.run(handing())
    assert engine.place(runner) == "held"


def test_no_offer_is_left_of_who_is_gone(runner: Driver, conn: psycopg.Connection[object], clock: Clock) -> None:
    for _ in range(2):
        waiting(runner)
    first, second = waiting(runner)[0], waiting(runner)[0]
    runner.run(workers.declare_dead([first.worker_id]))
    runner.run(workers.retire_worker(second.worker_id, "stopped"))
    assert engine.count(conn, "offers") == 2
    clock.advance(3600)
    runner.run(workers.reclaim())
    assert engine.count(conn, "offers") == 0


def test_of_two_that_wait_both_get_something(runner: Driver) -> None:
    one, other = waiting(runner, room=50)[0], waiting(runner, room=50)[0]
    for n in range(60):
        runner.run(handing(f"task-{n}"))
    assert min(len(handed(runner, one)), len(handed(runner, other))) >= 10


def test_two_submits_at_once_hand_two_items_over(runner: Driver) -> None:
    worker, _ = waiting(runner)
    sessions = runner.session(), runner.session()
    for n, session in enumerate(sessions):
        session.begin()
        session.run(handing(f"task-{n}"))
    assert handed(runner, worker) == ()
    for session in reversed(sessions):
        session.commit()
    assert len({item.token for item in handed(runner, worker)}) == 2


def test_two_that_look_at_who_does_not_wait_are_not_taken_for_him(runner: Driver) -> None:
    worker, says = waiting(runner)
    says.run(workers.stand_by(worker.worker_id, waits=False))
    looks = runner.session()
    looks.begin()
    looks.run(handing("first"))
    runner.run(handing("second"))
    assert not says.run(workers.stand_by(worker.worker_id, waits=True)), "somebody looks"
    looks.commit()
    assert [engine.place(runner, name) for name in ("first", "second")] == ["ready", "ready"]
    assert says.run(workers.stand_by(worker.worker_id, waits=True))


# -- races with those that judge a worker -----------------------------------------------------------------------------


def test_an_expiry_during_a_hand_over_waits_for_the_next_sweep_which_finds_the_item(
    runner: Driver, clock: Clock
) -> None:
    worker, _ = waiting(runner)
    submitter = runner.session()
    submitter.begin()
    submitter.run(handing())
    clock.advance(16)
    assert runner.run(workers.reclaim()) == ()
    submitter.commit()
    (lost,) = runner.run(workers.reclaim())
    assert (lost.worker_id, lost.crashes, engine.place(runner)) == (worker.worker_id, 1, "ready")


def test_who_is_being_judged_gets_nothing_and_the_submit_does_not_wait(runner: Driver) -> None:
    worker, _ = waiting(runner)
    session = runner.session()
    session.begin()
    session.execute("SELECT 1 FROM agentos.workers FOR UPDATE")  # as `reclaim`, `declare_gone` and `adopt` do first
    runner.run(handing())
    session.rollback()
    assert (engine.place(runner), handed(runner, worker)) == ("ready", ())


def test_a_death_that_is_declared_during_a_hand_over_strands_nothing(runner: Driver) -> None:
    """Whose process is known to be gone is declared dead without waiting for anybody."""
    worker, _ = waiting(runner)
    submitter = runner.session()
    submitter.begin()
    submitter.run(handing())
    runner.run(workers.declare_dead([worker.worker_id]))
    assert runner.run(workers.reclaim()) == ()
    submitter.commit()
    assert [lost.item_id for lost in runner.run(workers.reclaim())] == [engine.ids(runner, "task-1")[""]]
    assert engine.place(runner) == "ready"


@pytest.mark.parametrize("state", ["alive", "draining"])
def test_an_adoption_waits_for_a_hand_over_under_way_and_tells_of_it(
    runner: Driver, conn: psycopg.Connection[object], state: str
) -> None:
    worker, _ = waiting(runner)
    submitter, asking = runner.session(), runner.session()
    submitter.begin()
    item_id = submitter.run(handing())
    if state == "draining":
        runner.run(workers.retire_worker(worker.worker_id, state))
    with ThreadPoolExecutor(1) as thread:
        adopted = thread.submit(asking.run, workers.adopt(worker.worker_id))
        engine.wait_until_blocked(conn, asking.pid)
        submitter.commit()
        held: dict[int, UUID] = adopted.result().held
    assert list(held) == [item_id]
    runner.run(handing("next"))
    assert engine.place(runner, "next") == ("held" if state == "alive" else "ready")


def test_a_limit_waits_for_a_hand_over_under_way_and_counts_it(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    worker, _ = waiting(runner)
    submitter, setting = runner.session(), runner.session()
    submitter.begin()
    submitter.run(handing())
    with ThreadPoolExecutor(1) as thread:
        limited = thread.submit(setting.run, flow.set_limit("queue", "default", "concurrency", 1))
        engine.wait_until_blocked(conn, setting.pid)
        submitter.commit()
        assert limited.result()
    engine.submit(runner, "second")
    assert runner.run(items.claim_limited(worker.worker_id, 1, worker.lanes, 5)) == ()
    assert engine.count(conn, "limit_grants") == 1


def test_a_submit_waits_for_a_pause_under_way_and_then_hands_nothing_over(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    waiting(runner)
    pausing, submitter = runner.session(), runner.session()
    pausing.begin()
    pausing.run(flow.pause_queue("default"))
    with ThreadPoolExecutor(1) as thread:
        submitted = thread.submit(submitter.run, handing())
        engine.wait_until_blocked(conn, submitter.pid)
        pausing.commit()
        submitted.result()
    assert engine.place(runner) == "ready"


def test_a_submit_through_the_program_s_own_connection_carries_both(
    database_dsn: str, db: Database, conn: psycopg.Connection[object]
) -> None:
    """What `App.submit` sends after a pause, and the tidings behind it, in one message."""
    worker = engine.register(db)
    db.run(workers.offer(worker.worker_id, 0, worker.lanes, ROOM))
    assert conn.execute("SELECT agentos.stand_by(%s, true)", (worker.worker_id,)).fetchone() == (True,)
    conn.execute("LISTEN agentos_wake")
    form = form_of(tasks.submit("", "shell", "t", "{}", version=0), tasks.SUBMIT_BLANKS, tasks.HAND_OVER)
    assert form is not None
    waker_of(db).put(db, form, ("task-1", "{}"), "default")
    assert [n.payload for n in conn.notifies(timeout=10, stop_after=1)] == [workers.handed_to(worker.worker_id)]
    assert engine.place(db) == "held"


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_hand_over_and_a_look_for_it_read_no_more_than_theirs(
    db: Database, conn: psycopg.Connection[object], plans_of: Plans, lie: str
) -> None:
    worker = engine.register(db)
    db.run(workers.offer(worker.worker_id, 0, worker.lanes, 50))
    conn.execute(FILL, {"lane": worker.lanes[0], "count": 600})
    worker.claim(600)
    conn.execute("SELECT agentos.stand_by(%s, true)", (worker.worker_id,))
    conn.execute(lie.encode())
    plans = plans_of(handing())
    assert engine.place(db) == "held"
    assert scans(plans, "lease_held") == {("Index Scan", "lease_held_handed")}
    assert {index for _, index in scans(plans, "offers")} == {"offers_pkey"}
    assert {index for _, index in scans(plans, "workers")} == {"workers_pkey"}
    newest = db.run(flow.newest_lane())
    look = plans_of(items.claim_idle(worker.worker_id, 0, worker.lanes, 5, [], newest, 0, []))
    assert {index for _, index in scans(look, "lease_held")} == {"lease_held_handed"}
    fetch = plans_of(items.handed(worker.worker_id, 0, []))
    assert {index for _, index in scans(fetch, "lease_held")} == {"lease_held_handed"}
    assert {index for _, index in scans(fetch, "work_items")} == {"work_items_pkey"}
    assert {index for _, index in scans(fetch, "lanes")} == {"lanes_pkey"}


def test_while_the_horizon_is_pinned_a_look_does_not_walk_over_what_was_handed_over_long_ago(
    database_dsn: str, db: Database, conn: psycopg.Connection[object]
) -> None:
    """Dead entries of the index stay; a look starts above them."""
    worker = engine.register(db)
    db.run(workers.offer(worker.worker_id, 0, worker.lanes, 1000))
    conn.execute("SELECT agentos.stand_by(%s, true)", (worker.worker_id,))
    with connect(database_dsn) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM agentos.lanes")
        for n in range(100):
            db.run(handing(f"task-{n}"))
        held = db.run(items.handed(worker.worker_id, 0, []))
        worker.complete(*held)
        assert len(held) == 100

        def read(above: int) -> int:
            before = conn.execute(READ).fetchone()
            conn.execute("SELECT * FROM agentos.handed(%s, %s, '{}')", (worker.worker_id, above))
            after = conn.execute(READ).fetchone()
            assert before is not None
            assert after is not None
            return int(after[0]) - int(before[0])  # type: ignore[index]

        assert read(0) == 100
        assert read(held[-1].item_id) == 0
