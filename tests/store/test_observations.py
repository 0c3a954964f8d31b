"""What the leading coordinator tells metrics of the pool, over both drivers."""

import psycopg
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls.coordinator import observations
from agentos.testing.clock import Clock


def test_an_idle_pool(runner: Driver) -> None:
    seen = runner.run(observations())
    assert (seen.unroutable, seen.open_doubts, seen.alive, seen.draining, seen.late) == (0, 0, 0, 0, 0)


def test_workers_by_state_and_work_that_nobody_runs(runner: Driver, clock: Clock) -> None:
    engine.submit(runner, kind="shell")
    assert runner.run(observations()).unroutable == 1
    engine.register(runner, kinds=["shell"], ttl_s=10)
    engine.register(runner, kinds=["other"], ttl_s=60)
    seen = runner.run(observations())
    assert (seen.unroutable, seen.alive, seen.late) == (0, 2, 0)
    clock.advance(30)
    seen = runner.run(observations())
    assert (seen.unroutable, seen.alive, seen.late) == (1, 1, 1)


def test_an_open_transaction_holds_the_horizon(runner: Driver, database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT 1")
        for n in range(5):
            engine.submit(runner, f"task-{n}")
        seen = runner.run(observations())
        assert seen.oldest_transaction_s > 0
        assert seen.horizon_age >= 5
