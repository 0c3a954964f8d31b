"""What the coordinator counts: exact where it says so, bounded in what it costs, and each end counted once."""

import json
import time
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, statistics, tasks, timeline, workers
from agentos.store.calls.statistics import LaneStatistics
from agentos.store.connect import Database
from agentos.store.errors import StatisticsStale
from agentos.testing.clock import Clock

FILL = """
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT %(lane)s, n, n, -n - 10000000 * %(lane)s, 0, 0, 0 FROM generate_series(1, %(count)s) n
"""


@pytest.fixture
def clock(clock: Clock) -> Clock:
    """At the beginning of a minute: ends are counted by minutes, and a test is not to meet the end of one."""
    clock.advance(61 - time.time() % 60)
    return clock


def counted(db: engine.Runs, kind: str = "shell") -> LaneStatistics:
    """A fresh count."""
    db.run(statistics.take_statistics(0))
    return next(each for each in db.run(statistics.lane_statistics()) if each.kind == kind)


def test_every_item_is_counted_where_it_is(runner: Driver) -> None:
    worker = engine.register(runner)
    for n in range(5):
        engine.submit(runner, f"task-{n}")
    engine.submit(runner, "task-late", delay_s=60)
    engine.create(runner, "task-chain", {"a": [], "b": ["a"], "c": ["b"]})
    crashed = engine.register(runner)
    crashed.claim(1)
    engine.crash(runner, crashed)
    worker.claim(2)
    found = counted(runner)
    assert (found.ready, found.held, found.scheduled, found.waiting) == (4, 2, 1, 2), "with the one that runs alone"
    assert found.ready_exact
    assert found.parked_exact
    assert runner.run(statistics.backlog("default")) == 6
    assert runner.run(statistics.backlog("elsewhere")) == 0


def test_ends_are_counted_once_by_minute_and_in_all(
    runner: Driver, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    assert counted_or_none(runner) is None
    worker = engine.register(runner)
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    first, second, third = worker.claim(3)
    worker.complete(first, second)
    engine.crash(runner, worker)
    clock.advance(70)
    assert third.item_id
    for _ in range(3):
        assert (counted(runner).completed, counted(runner).failed) == (2, 0)
    assert counted(runner).completed_5m == 2
    assert conn.execute("SELECT sum(completed) FROM agentos.throughput").fetchone() == (2,)
    clock.advance(400)
    found = [counted(runner) for _ in range(8)][-1]  # a minute at a time
    assert (found.completed, found.completed_5m) == (2, 0)


def counted_or_none(db: engine.Runs) -> LaneStatistics | None:
    db.run(statistics.take_statistics(0))
    return next(iter(db.run(statistics.lane_statistics())), None)


def test_of_two_who_count_at_once_one_does_and_a_death_counts_nothing(runner: Driver, clock: Clock) -> None:
    runner.run(statistics.take_statistics(0))
    worker = engine.register(runner)
    engine.submit(runner)
    worker.complete(*worker.claim())
    clock.advance(10)
    first, second = runner.session(), runner.session()
    first.begin()
    assert first.run(statistics.take_statistics(10)) == 1
    assert second.run(statistics.take_statistics(0)) is None
    first.close()  # dies before its commit
    while runner.run(statistics.take_statistics(0)) is None:
        time.sleep(0.01)  # until the server has noticed
    assert counted(runner).completed == 1
    assert runner.run(statistics.take_statistics(10)) is None, "just counted"


def test_an_hour_is_caught_up_a_minute_at_a_time(runner: Driver, clock: Clock) -> None:
    runner.run(statistics.take_statistics(0))
    worker = engine.register(runner, ttl_s=86400)
    for n in range(4):
        clock.advance(50)
        engine.submit(runner, f"task-{n}")
        worker.complete(*worker.claim())
    clock.advance(10)
    assert counted(runner).completed == 1
    assert [counted(runner).completed for _ in range(3)] == [2, 3, 4]


def test_the_age_is_of_the_item_that_comes_next_and_bounded_by_what_was_seen(runner: Driver, clock: Clock) -> None:
    engine.submit(runner, "task-old")
    clock.advance(100)
    found = counted(runner)
    assert found.oldest_ready_s is not None
    assert 100 <= found.oldest_ready_s < 110
    engine.register(runner).claim()
    engine.submit(runner, "task-delayed", delay_s=1000)
    clock.advance(995)
    assert counted(runner).oldest_ready_s is None
    clock.advance(10)
    runner.run(workers.promote())
    found = counted(runner)
    assert found.oldest_ready_s is not None
    assert found.oldest_ready_s < 20, "its lane was seen empty after it was submitted"


def test_a_backlog_that_nobody_counted_lately_is_refused(runner: Driver, clock: Clock) -> None:
    with pytest.raises(StatisticsStale, match="since the schema was made"):
        runner.run(statistics.backlog("default"))
    runner.run(statistics.take_statistics(0))
    assert runner.run(statistics.backlog("default")) == 0
    clock.advance(130)
    with pytest.raises(StatisticsStale) as refused:
        runner.run(statistics.backlog("default"))
    assert "agentos-coordinator" in (refused.value.hint or "")
    assert runner.run(statistics.backlog("default", 1000)) == 0


def blocks(conn: psycopg.Connection[Any]) -> int:
    """Pages that one count of 30 pages and 500 rows a lane touches."""
    row = conn.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT agentos.count_places(30, 500)").fetchone()
    assert row is not None
    plan = (row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.unsound("its ready rows are of no item")
def test_a_count_costs_the_same_however_many_are_ready(db: Database, conn: psycopg.Connection[Any]) -> None:
    small, large = db.run(workers.lanes_of(["default"], ["small", "large"]))
    conn.execute(FILL, {"lane": small, "count": 400})
    conn.execute(FILL, {"lane": large, "count": 20_000})
    conn.execute("VACUUM ANALYZE agentos.lease_ready")
    before = blocks(conn)
    conn.execute(
        FILL.replace("-n -", "-n - 5000000 -").replace("n, n,", "n + 30000, n + 30000,"),
        {"lane": large, "count": 280_000},
    )
    conn.execute("VACUUM ANALYZE agentos.lease_ready")
    assert blocks(conn) < 2 * before, "15 times the rows"
    found = {each.kind: each for each in db.run(statistics.lane_statistics())}
    assert (found["small"].ready, found["small"].ready_exact) == (400, True)
    assert not found["large"].ready_exact
    assert 150_000 < found["large"].ready < 450_000, "30 pages of 2,000 tell it to within a fifth, nearly always"


def test_partitions_are_told_by_the_days_that_they_reach_ahead(runner: Driver, clock: Clock) -> None:
    assert runner.run(statistics.partitions_ahead()) == {"outcomes": 7, "events": 7}
    clock.advance(5 * 86400)
    assert runner.run(statistics.partitions_ahead()) == {"outcomes": 2, "events": 2}
    assert "partitions_short" in {each.finding for each in runner.run(timeline.findings())}


def test_other_ends_are_counted_apart(runner: Driver, clock: Clock) -> None:
    runner.run(statistics.take_statistics(0))
    engine.submit(runner, "task-cancelled", delay_s=60)
    runner.run(tasks.cancel_task("task-cancelled"))
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(items.fail(item.fence(worker.worker_id), '{"type": "X", "message": "m"}', terminal=True))
    clock.advance(10)
    found = counted(runner)
    assert (found.completed, found.failed, found.cancelled, found.failed_5m) == (0, 1, 1, 0), "its minute is not over"
