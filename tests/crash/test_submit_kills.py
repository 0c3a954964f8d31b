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


@pytest.mark.parametrize("coroutines", [1, 8])
def test_killed_amid_awaited_submits_what_was_told_is_there_and_each_task_has_all_its_rows(
    pool: Pool, coroutines: int
) -> None:
    submitter = Daemon("tests.crash.submitter", "forever", str(coroutines), env={"PYTHONPATH": PATH})
    until(lambda: len(submitter.lines) > 200)
    submitter.signal(signal.SIGKILL)
    assert submitter.ended() == -signal.SIGKILL
    until(lambda: pool.row("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == (1,))
    told = {line.split()[1] for line in submitter.lines if line.startswith("told") and line.endswith("\n")}
    found = {row[0] for row in pool.rows("SELECT task_id FROM agentos.task_records")}
    assert len(told) > 200
    assert told <= found
    assert len(found) <= len(told) + 2 * coroutines
    assert (
        pool.row(
            "SELECT count(*), count(w.item_id), count(r.item_id) FROM agentos.task_records t"
            " LEFT JOIN agentos.work_items w ON w.item_id = t.single"
            " LEFT JOIN agentos.lease_ready r ON r.item_id = t.single"
        )
        == (len(found),) * 3
    )
