"""Worker processes behind PgBouncer in transaction mode: one is killed, another goes on, and nothing listens."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.coordinator.daemon import until
from tests.pgbouncer import pgbouncer, through
from tests.worker.pool import Pool

from agentos.store import pooler
from agentos.store.connect import Database


@pytest.fixture
def pooled(database_dsn: str, tmp_path: Path) -> Iterator[Pool]:
    """A pool of processes that reach the test's database by way of a PgBouncer."""
    with pgbouncer(database_dsn) as address:
        dsn = through(address, database_dsn)
        pool = Pool(dsn, tmp_path / "effects.log", Database(dsn))
        yield pool
        pool.close()
        pool.db.close()
    pooler.forget()


def test_a_killed_worker_is_recovered_behind_pgbouncer(pooled: Pool) -> None:
    pooled.coordinator()
    doomed = pooled.worker()
    doomed.until_said("polling, not listening")
    handles = [pooled.submit("journey", steps=3, pause_after=1) for _ in range(4)]
    until(lambda: len(pooled.effects("paused")) == 4)
    doomed.signal(signal.SIGKILL)
    pooled.worker()
    pooled.log.with_name("go").touch()
    assert [handle.result(60)["done"] for handle in handles] == [[0, 1, 2]] * 4
    assert pooled.repeated("effect") == []
    assert {pooled.counters(handle) for handle in handles} == {(2, 0, 1)}


def test_a_handlers_own_transaction_commits_behind_pgbouncer(pooled: Pool) -> None:
    with pooled.db.connection() as conn:
        conn.execute("CREATE TABLE payments (step integer)")
    pooled.worker(concurrency=4)
    handles = [pooled.submit("pays", steps=3) for _ in range(8)]
    for handle in handles:
        handle.result(60)
    assert pooled.rows("SELECT step, count(*) FROM payments GROUP BY 1 ORDER BY 1") == [(0, 8), (1, 8), (2, 8)]
