"""Behind PgBouncer in transaction mode: it is noticed, nothing is prepared, and the core of these tests passes too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.drivers import LoopThread
from tests.pgbouncer import POOLER, pgbouncer, through

from agentos.store import pooler
from agentos.store.calls import workers
from agentos.store.connect import AsyncDatabase, Database, connect
from agentos.store.errors import ConfigInvalid, DatabaseUnavailable
from agentos.store.run import run_call
from agentos.store.settings import load_settings

HERE = Path(__file__).parent
CORE = (
    "test_fence.py", "test_claim.py", "test_finish.py", "test_reclaim.py", "test_checkpoint_calls.py",
    "test_ledger_calls.py", "test_cache_calls.py",
)  # fmt: skip
LANES = workers.lanes_of(["default"], ["shell"])


@pytest.fixture
def pooled_dsn(database_dsn: str) -> Iterator[str]:
    """The test's database, by way of a PgBouncer of its own."""
    with pgbouncer(database_dsn) as address:
        yield through(address, database_dsn)
    pooler.forget()


@pytest.mark.timeout(400)
def test_the_core_of_the_store_runs_behind_pgbouncer() -> None:
    """What a worker and a program call over each driver's handle. `listen`: nobody can, the next test but one says."""
    with pgbouncer("postgresql://agentos@127.0.0.1:1/none"):
        pass  # or skip here, with the reason
    tests = [str(HERE / name) for name in CORE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not psycopg and not listen", *tests],
        env={**os.environ, POOLER: "1"}, cwd=HERE.parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 100, done.stdout[-500:]


def test_a_pooler_is_noticed_and_a_server_is_not_taken_for_one(database_dsn: str, pooled_dsn: str) -> None:
    with connect(database_dsn) as direct, connect(pooled_dsn) as behind:
        assert (pooler.is_pooled(direct), direct.prepare_threshold) == (False, 5)
        assert (pooler.is_pooled(behind), behind.prepare_threshold) == (True, None)
    assert (pooler.known(database_dsn), pooler.known(pooled_dsn)) == (False, True)


def test_what_is_said_stands_over_what_is_found(pooled_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_POOLER", "none")
    with connect(pooled_dsn) as conn:
        assert (pooler.is_pooled(conn), pooler.known(pooled_dsn)) == (False, False)
    monkeypatch.setenv("AGENTOS_POOLER", "transaction")
    with connect(pooled_dsn) as conn:
        assert (pooler.is_pooled(conn), pooler.known(pooled_dsn)) == (True, True)
    with pytest.raises(ConfigInvalid, match="AGENTOS_POOLER"):
        load_settings(pooler="session")


def test_calls_go_on_when_each_is_in_another_session(
    pooled_dsn: str, monkeypatch: pytest.MonkeyPatch, loop_thread: LoopThread
) -> None:
    """The same calls fail where a client believes that it has the server for itself: that is what is noticed for."""
    db = Database(pooled_dsn, max_size=2)
    adb = loop_thread.wait(AsyncDatabase.open(pooled_dsn))
    assert adb.pooled
    with db.connection() as one, db.connection() as two:  # both at once, so that there are two sessions
        one.execute("BEGIN")
        assert [run_call(two, LANES) for _ in range(10)] == [(1,)] * 10
        one.execute("COMMIT")
        assert [run_call(each, LANES) for _ in range(10) for each in (one, two)] == [(1,)] * 20
    assert [loop_thread.wait(adb.run(LANES)) for _ in range(10)] == [(1,)] * 10
    loop_thread.wait(adb.close())
    db.close()
    monkeypatch.setenv("AGENTOS_POOLER", "none")
    refused = (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName)
    with connect(pooled_dsn) as one, connect(pooled_dsn) as two, pytest.raises(refused):
        [run_call(each, LANES) for each in (one, two) for _ in range(20)]


def test_a_startup_parameter_that_it_refuses_is_told_with_the_fix(pooled_dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="unsupported startup parameter") as told:
        connect(f"{pooled_dsn}?options=-csearch_path%3Dmine")
    assert "ignore_startup_parameters" in (told.value.hint or "")


def test_settings_of_a_transaction_end_with_it(pooled_dsn: str, conn: psycopg.Connection[Any]) -> None:
    """The engine's timeouts and the floors of claims are per transaction, or guesses that any session may have."""
    with connect(pooled_dsn) as behind:
        behind.execute("SELECT agentos.enter_fence()")
        for _ in range(5):
            assert behind.execute("SHOW statement_timeout").fetchone() == ("0",)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert conn.execute(locks).fetchone() == (0,)
