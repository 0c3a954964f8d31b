"""Limits hold exactly: whoever claims at once, whoever dies, and from the commit that sets them on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver, Session
from tests.store import engine

from agentos.store.calls import flow, items, tasks, workers
from agentos.store.connect import Database
from agentos.store.errors import LanesChanged, QueueFull
from agentos.testing.clock import Clock

WORKERS = 8


def keyed(db: engine.Runs, n: int, *, key: str = "", tenant: str = "", queue: str = "default") -> None:
    """So many tasks of one item."""
    ids = [f"{queue}-{tenant}-{key}-{i}" for i in range(n)]
    db.run(tasks.submit_many(ids, "shell", "t", ["{}"] * n, queue=queue, tenant=tenant, limit_key=key))


def limited(db: engine.Runs, worker: engine.Worker, *, queues: tuple[str, ...] = ("default",)) -> list[int]:
    """The lanes that this worker may claim from only by `claim_limited`."""
    return [each.lane for each in db.run(flow.served_lanes(queues, ["shell"], [0])).lanes if each.limited]


def claim(db: engine.Runs, worker: engine.Worker, lanes: list[int], most: int = 100) -> tuple[items.ClaimedItem, ...]:
    return db.run(items.claim_limited(worker.worker_id, worker.epoch, lanes, most))


def test_a_limit_of_rate_and_depth_is_listed(runner: Driver) -> None:
    runner.run(flow.set_depth("default", 9))
    runner.run(flow.set_limit("tenant", "acme", "rate", 4, period_s=2.0))
    shown = [(row.scope, row.name, row.measure, row.most, row.period_s) for row in runner.run(flow.list_limits())]
    assert shown == [("queue", "default", "depth", 9, None), ("tenant", "acme", "rate", 4, 2.0)]


def held(conn: psycopg.Connection[Any]) -> int:
    return engine.count(conn, "lease_held")


def in_threads(runner: Driver, work: Callable[[Session, int], Any]) -> list[Any]:
    sessions = [runner.session() for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as threads:
        return [each.result() for each in [threads.submit(work, session, n) for n, session in enumerate(sessions)]]


def test_eight_workers_that_complete_fail_and_die_never_hold_more_than_the_limit(
    runner: Driver, db: Database, database_dsn: str
) -> None:
    """A witness asks for what is held all the time. Who dies keeps its places until its leases are taken."""
    db.run(flow.set_limit("queue", "default", "concurrency", 5))
    keyed(db, 150)
    seen: list[int] = []
    over = threading.Event()

    def witness() -> None:
        with psycopg.connect(database_dsn, autocommit=True) as mine:
            while not over.is_set():
                seen.append(held(mine))

    def work(session: Session, n: int) -> int:
        worker, done = engine.register(session), 0
        lanes = limited(session, worker)
        until = time.monotonic() + 60
        while time.monotonic() < until and done >= 0:
            claimed = claim(session, worker, lanes, 1 + n % 3)
            if not claimed and not db.run(flow.list_queues())[0].ready and not db.run(flow.list_queues())[0].held:
                break
            for at, item in enumerate(claimed):
                if (item.item_id + at) % 11 == 0 and item.crashes == 0:
                    engine.crash(session, worker)
                    worker = engine.register(session)
                    break
                worker.complete(item, on=session)
                done += 1
            lanes = [*limited(session, worker), *[-lane for lane in limited(session, worker)]]
        return done

    with ThreadPoolExecutor(1) as beside:
        looking = beside.submit(witness)
        done = in_threads(runner, work)
        over.set()
        looking.result()
    assert sum(done) == 150
    assert max(seen) == 5
    print(f"limit 5: at most {max(seen)} held, of {len(seen)} looks")


def test_a_limit_per_key_and_one_for_all_hold_together(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    runner.run(flow.set_limit("kind", "shell", "concurrency", 2, per="key"))
    runner.run(flow.set_limit("all", "", "concurrency", 5))
    for key in ("a", "b", "c", "d"):
        keyed(runner, 10, key=key)
    worker = engine.register(runner)
    claimed = claim(runner, worker, limited(runner, worker))
    assert len(claimed) == 5
    by_key = "SELECT count(*) FROM agentos.lease_held JOIN agentos.lanes USING (lane) GROUP BY limit_key"
    of_key = [row[0] for row in conn.execute(by_key).fetchall()]
    assert max(of_key) == 2
    rows = {(row.scope, row.measure): (row.used, row.keys) for row in runner.run(flow.list_limits())}
    assert rows == {("all", "concurrency"): (5, 1), ("kind", "concurrency"): (2, 3)}


def test_items_without_a_key_are_left_alone_by_limits_per_key(runner: Driver) -> None:
    runner.run(flow.set_limit("kind", "shell", "concurrency", 1, per="key"))
    runner.run(flow.set_limit("tenant", "acme", "concurrency", 1))
    keyed(runner, 3)
    keyed(runner, 3, tenant="acme")
    worker = engine.register(runner)
    assert len(worker.claim(10)) == 3
    assert len(claim(runner, worker, limited(runner, worker))) == 1


def test_a_limit_holds_from_its_commit_on_and_waits_for_claims_in_flight(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    keyed(runner, 10)
    worker, other = engine.register(runner), engine.register(runner)
    in_flight, setting = runner.session(), runner.session()
    in_flight.begin()
    (first,) = worker.claim(on=in_flight)
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(setting.run, flow.set_limit("queue", "default", "concurrency", 2))
        engine.wait_until_blocked(conn, setting.pid)
        in_flight.commit()
        assert done.result()
    for each in (worker, other):
        with pytest.raises(LanesChanged, match="has changed"):
            each.claim()
    epoch = runner.run(workers.adopt(other.worker_id)).claim_epoch
    renewed = engine.Worker(runner, other.worker_id, other.lanes, epoch)
    assert len(claim(runner, renewed, limited(runner, renewed))) == 1, "what was held before counts"
    worker.complete(first)
    assert len(claim(runner, renewed, limited(runner, renewed))) == 1
    assert claim(runner, renewed, limited(runner, renewed)) == ()
    assert not runner.run(flow.set_limit("queue", "default", "concurrency", 2)), "it is that already"
    assert runner.run(flow.clear_limit("queue", "default", "concurrency"))
    assert not runner.run(flow.clear_limit("queue", "default", "concurrency"))


def test_what_an_app_declares_does_not_replace_what_an_operator_set(runner: Driver) -> None:
    assert runner.run(flow.set_limit("kind", "x", "concurrency", 3, declared=True))
    assert runner.run(flow.set_limit("kind", "x", "concurrency", 7))
    assert not runner.run(flow.set_limit("kind", "x", "concurrency", 3, declared=True))
    assert [row.most for row in runner.run(flow.list_limits())] == [7]


def test_a_waiting_item_holds_no_place_and_a_solo_one_does(runner: Driver) -> None:
    runner.run(flow.set_limit("queue", "default", "concurrency", 1))
    keyed(runner, 2)
    worker = engine.register(runner)
    lanes = limited(runner, worker)
    (first,) = claim(runner, worker, lanes)
    runner.run(engine.ask(worker.fence(first), "go on?", "{}", first.task_id))
    (second,) = claim(runner, worker, lanes)
    engine.crash(runner, worker)
    other = engine.register(runner)
    (again,) = claim(runner, other, [-lane for lane in lanes])
    assert (again.item_id, again.crashes) == (second.item_id, 1)
    keyed(runner, 1, key="late")
    assert claim(runner, other, limited(runner, other)) == ()


def test_claim_one_obeys_limits_and_pauses(runner: Driver) -> None:
    runner.run(flow.set_limit("queue", "default", "concurrency", 1))
    keyed(runner, 2)
    worker = engine.register(runner, role="lease")
    first = runner.run(items.claim_one(worker.worker_id, 0, None, 60))
    assert first is not None
    assert runner.run(items.claim_one(worker.worker_id, 0, None, 60)) is None
    worker.complete(first)
    runner.run(flow.pause_queue("default"))
    assert runner.run(items.claim_one(worker.worker_id, 0, None, 60)) is None
    runner.run(flow.resume_queue("default"))
    assert runner.run(items.claim_one(worker.worker_id, 0, None, 60)) is not None


def test_a_rate_holds_for_every_period_and_what_died_is_not_given_back(runner: Driver, clock: Clock) -> None:
    runner.run(flow.set_limit("kind", "shell", "rate", 5, period_s=60.0))
    keyed(runner, 40)
    worker = engine.register(runner, ttl_s=10_000)
    lanes = limited(runner, worker)
    assert len(claim(runner, worker, lanes, 3)) == 3
    clock.advance(30)
    engine.crash(runner, worker)
    worker = engine.register(runner, ttl_s=10_000)
    lanes = limited(runner, worker)
    assert len(claim(runner, worker, lanes)) == 2
    clock.advance(29)
    assert claim(runner, worker, lanes) == ()
    clock.advance(2)
    assert len(claim(runner, worker, lanes)) == 3, "the three of the first claim are older than a period"
    clock.advance(30)
    assert len(claim(runner, worker, lanes)) == 2


def test_eight_workers_claim_exactly_the_rate(runner: Driver, db: Database, clock: Clock) -> None:
    db.run(flow.set_limit("queue", "default", "rate", 7, period_s=3600.0, per="tenant"))
    for tenant in ("a", "b"):
        keyed(db, 100, tenant=tenant)

    def work(session: Session, n: int) -> int:
        worker, got = engine.register(session, ttl_s=100_000), 0
        lanes = limited(session, worker)
        for _ in range(6):
            claimed = claim(session, worker, lanes[:: 1 - 2 * (n % 2)], 2)
            got += len(claimed)
            for item in claimed:
                worker.complete(item, on=session)
        return got

    assert sum(in_threads(runner, work)) == 14
    clock.advance(3601)
    assert sum(in_threads(runner, work)) == 14


def test_gates_are_locked_in_one_order(runner: Driver, db: Database) -> None:
    """Lanes asked for in opposite orders, under limits that they share in part: nobody deadlocks."""
    db.run(flow.set_limit("kind", "shell", "concurrency", 1000, per="key"))
    db.run(flow.set_limit("queue", "default", "concurrency", 1000, per="tenant"))
    for n in range(6):
        keyed(db, 60, key=f"k{n % 3}", tenant=f"t{n % 2}-{n // 3}")

    def work(session: Session, n: int) -> int:
        worker = engine.register(session)
        lanes = limited(session, worker)
        return sum(len(claim(session, worker, lanes if n % 2 else lanes[::-1], 3)) for _ in range(15))

    assert sum(in_threads(runner, work)) == 360


def test_a_full_queue_refuses_and_eight_submitters_fill_it_exactly(
    runner: Driver, db: Database, conn: psycopg.Connection[Any]
) -> None:
    db.run(flow.set_depth("default", 50))

    def work(session: Session, n: int) -> int:
        put = 0
        for i in range(10):
            with suppress(QueueFull):
                session.run(tasks.submit(f"{n}-{i}", "shell", "t", "{}", limit_key="k" if n % 2 else ""))
                put += 1
        return put

    assert sum(in_threads(runner, work)) == 50
    assert engine.count(conn, "lease_ready") == 50
    with pytest.raises(QueueFull, match="at least 50 items are ready, and its max_depth is 50") as full:
        engine.submit(db)
    assert "--max-depth" in (full.value.hint or "")
    worker = engine.register(runner)
    assert len(worker.claim(5)) == 5
    with pytest.raises(QueueFull, match="takes 5 more"):
        keyed(db, 6, key="bulk")
    plan = '[{"key": "a", "kind": "shell"}, {"key": "b", "kind": "shell"}]'
    db.run(tasks.create_task("plan", "t", items=plan))
    keyed(db, 3, key="bulk")
    with pytest.raises(QueueFull):
        db.run(tasks.create_task("plan-2", "t", items=plan))
    with pytest.raises(QueueFull):
        db.run(tasks.add_items("plan", [("c", "shell", "{}", None, None, None, None)]))
    with pytest.raises(QueueFull):
        db.run(tasks.add_alike("plan", "shell", ["c"], ["{}"]))
    db.run(tasks.submit("later", "shell", "t", "{}", delay_s=60))
    assert engine.count(conn, "lease_ready") == 50
    assert db.run(flow.set_depth("default", None))
    engine.submit(db, "unlimited")


def test_a_submit_that_is_rolled_back_spends_no_credit(runner: Driver, db: Database) -> None:
    db.run(flow.set_depth("default", 1))
    session = runner.session()
    session.begin()
    session.run(tasks.submit("gone", "shell", "t", "{}"))
    session.rollback()
    engine.submit(db, "stays")
    with pytest.raises(QueueFull):
        engine.submit(db, "too-many")
