"""A submitter is killed -9 around the COMMIT of its own transaction: its row and its tasks, all there or none."""

import signal

import pytest
from tests.coordinator.daemon import Daemon, until
from tests.worker.pool import PATH, Pool, ended

from agentos.core.app import App
from agentos.store.connect import connect


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "blocking"])
def test_killed_around_the_commit_the_row_and_the_tasks_are_there_or_neither(
    pool: Pool, driver: str, when: str
) -> None:
    with connect(pool.dsn) as conn:
        conn.execute("CREATE TABLE orders (id integer)")
    submitter = Daemon("tests.crash.submitter", driver, when, env={"PYTHONPATH": PATH})
    assert submitter.ended() == -signal.SIGKILL
    until(lambda: pool.row("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == (1,))
    rows, tasks, ready = pool.row(
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM agentos.task_records),"
        " (SELECT count(*) FROM agentos.lease_ready)"
    )
    assert tasks == ready == 2 * rows
    assert rows in {"before": (0,), "during": (0, 1), "after": (1,)}[when]
    if when == "after":
        pool.worker(wait=False)  # nobody was told: the poll finds them
        ids = [row[0] for row in pool.rows("SELECT task_id FROM agentos.task_records")]
        assert [ended(App(dsn=pool.dsn).handle(task_id)) for task_id in ids] == ["completed"] * 2
