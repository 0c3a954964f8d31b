"""Making the partitions of the next days: whoever else makes them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from tests.store import engine

from agentos.store.calls import workers
from agentos.store.connect import OnConnection, connect


def test_who_waited_for_another_that_made_them_makes_none(conn: psycopg.Connection[Any], database_dsn: str) -> None:
    row = conn.execute("SELECT to_char(agentos.clock() AT TIME ZONE 'UTC' + interval '7 days', 'YYYYMMDD')").fetchone()
    assert row is not None
    for parent in ("outcomes", "events"):
        conn.execute(f"DROP TABLE agentos.{parent}_{row[0]}")
    with connect(database_dsn) as other, ThreadPoolExecutor(1) as thread:
        with conn.transaction():
            assert OnConnection(conn).run(workers.ensure_partitions()) == 2
            waiting = thread.submit(OnConnection(other).run, workers.ensure_partitions())
            with connect(database_dsn) as looking:
                engine.wait_until_blocked(looking, other.info.backend_pid)
        assert waiting.result(60) == 0
