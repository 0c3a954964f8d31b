"""How many connections to the database one worker process keeps."""

import time

from tests.worker.pool import Pool

OTHERS = """
SELECT application_name, count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name <> current_setting('application_name')
   AND application_name LIKE 'agentos%%' GROUP BY 1"""
"""Without those of this process: one that was closed is seen for a moment longer."""


def test_a_busy_worker_keeps_at_most_four(pool: Pool) -> None:
    """Two for calls, one that beats and listens, and one for what runs in threads. An idle one: test_idle."""
    pool.worker(concurrency=8, ttl=60)
    handles = [pool.submit("journey", steps=10) for _ in range(40)]
    most: dict[str, int] = {}
    while len(pool.effects("effect")) < 400:
        found = dict(pool.rows(OTHERS))
        most = max(most, found, key=lambda each: sum(each.values()))
        time.sleep(0.02)
    print(f"connections of a busy worker: {most}")
    assert 1 < sum(most.values()) <= 4
    assert len(handles) == 40
