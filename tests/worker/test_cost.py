"""What work costs the server: the figures of docs/sizing.md, and bounds that a change must not pass unnoticed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.coordinator.daemon import until_counted
from tests.worker.pool import Pool

from agentos.core.app import App
from agentos.core.wake import PAUSE_S
from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate

ITEMS = 4000
ALONE = 200
WALKS = 100
STEPS = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one piece of work."""

    wal_bytes: float
    commits: float
    seconds: float


@pytest.fixture
def pool(own_server: Callable[..., EmbeddedServer], tmp_path: Path) -> Pool:
    """On a server that does nothing else. No whole pages in its WAL: how many there are depends on its checkpoints."""
    server = own_server({"fsync": "off", "full_page_writes": "off", "autovacuum": "off"})
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    return Pool(dsn, tmp_path / "effects.log", Database(dsn))


def cost(pool: Pool, pieces: int, work: Callable[[], object]) -> Cost:
    """By the server's own counters; what the session that asks commits is a few of thousands."""
    began = time.monotonic()
    wal, commits = counters(pool)
    work()
    pool.rows("SELECT pg_stat_force_next_flush()")
    after = counters(pool)
    return Cost((after[0] - wal) / pieces, (after[1] - commits) / pieces, (time.monotonic() - began) / pieces)


def counters(pool: Pool) -> tuple[int, int]:
    wal, commits = pool.row(
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, xact_commit FROM pg_stat_database"
        " WHERE datname = current_database()"
    )
    return int(wal), int(commits)


def test_the_cost_of_an_item_and_of_a_step_stays_what_the_page_of_sizing_says(pool: Pool) -> None:
    app = App(dsn=pool.dsn)

    def until_done(n: int) -> None:
        until_counted(lambda: int(pool.row("SELECT count(*) FROM agentos.outcomes")[0]), n, every_s=0.5)

    def drain() -> None:
        pool.worker(concurrency=8, ttl=15)
        until_done(ITEMS + ALONE)

    def walk() -> None:
        app.submit_many("steps", [{"n": STEPS}] * WALKS)
        until_done(ITEMS + ALONE + WALKS)

    try:
        bulk = cost(pool, ITEMS, lambda: app.submit_many("quick", [{"n": n} for n in range(ITEMS)]))
        alone = cost(pool, ALONE, lambda: [app.submit("quick", {"n": n}) for n in range(ALONE)])
        drained = cost(pool, ITEMS + ALONE, drain)
        stepped = cost(pool, WALKS * STEPS, walk)
    finally:
        pool.close()
    print(f"submit in bulk {bulk}, alone {alone}; claim and completion {drained}; checkpoint {stepped}")
    assert bulk.wal_bytes < 1000
    assert alone.commits < 1.2 + alone.seconds / PAUSE_S  # a notice travels behind one of those within a pause
    assert drained.wal_bytes < 1200
    assert drained.commits < 0.2  # those of the test that looks are in it
    assert stepped.wal_bytes < 2400
    assert stepped.commits < 0.6
