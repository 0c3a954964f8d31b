"""Many items, many workers: none is lost, none runs twice."""

import json
from collections import Counter

import pytest
from tests.coordinator.daemon import until, until_counted
from tests.worker.pool import Pool, Sweeping

from agentos.store.calls import tasks
from agentos.store.run import Call

ITEMS = 20_000
ENDED = "SELECT count(*) FROM agentos.outcomes"


def submit_many(count: int) -> Call[None]:
    """`count` tasks of kind quick in one statement."""
    return Call(
        "SELECT count(agentos.submit('task-' || n, 'quick', 'a title', json_build_object('n', n)::text, 'default', 0,"
        " 5, NULL, 0)) FROM generate_series(1, $1::integer) n",
        (count,),
        lambda _: None,
    )


CLAIMING = """
    SELECT count(DISTINCT agentos.process_of(application_name)) FROM pg_locks JOIN pg_stat_activity USING (pid)
     WHERE NOT granted AND relation = 'agentos.lease_ready'::regclass
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_drain_20_000_items_each_exactly_once(pool: Pool) -> None:
    pool.db.run(submit_many(ITEMS))
    with pool.db.connection() as conn, conn.transaction():
        conn.execute("LOCK TABLE agentos.lease_ready IN ACCESS EXCLUSIVE MODE")  # else the first may drain it alone
        for _ in range(2):
            pool.worker(concurrency=50, ttl=15, wait=False)
        until(lambda: pool.row(CLAIMING) == (2,), what="the first claims of both")
    until_counted(lambda: pool.row(ENDED)[0], ITEMS)
    ran = Counter(pool.effects("ran"))
    assert len(ran) == ITEMS
    assert ran.most_common(1)[0][1] == 1
    shares = pool.rows("SELECT count(*), max(failures + crashes) FROM agentos.outcomes GROUP BY worker_id")
    assert len(shares) == 2
    assert {charged for _, charged in shares} == {0}
    (seconds,) = pool.row("SELECT extract(epoch FROM max(finished_at) - min(claimed_at)) FROM agentos.outcomes")
    print(f"{ITEMS} items by two workers: {ITEMS / float(seconds):.0f}/s, shares {[n for n, *_ in shares]}")


def test_two_workers_that_complete_the_last_two_items_of_a_task_at_once_finish_it(pool: Pool) -> None:
    count = 60
    for n in range(count):
        items = json.dumps([{"key": key, "kind": "wait", "payload": {"name": f"go-{n}"}} for key in ("a", "b")])
        pool.db.run(tasks.create_task(f"task-{n}", "a title", items=items))
    for _ in range(2):
        pool.worker(concurrency=count, ttl=15, wait=False)
    until(lambda: len(pool.effects("waiting")) == 2 * count)
    assert len({line.split(" ")[3] for line in pool.effects("waiting")}) == 2
    for n in range(count):
        pool.log.with_name(f"go-{n}").touch()
    until(lambda: pool.row("SELECT count(*) FROM agentos.tasks WHERE status = 'completed'") == (count,))
    assert pool.row("SELECT max(open_items), min(open_items) FROM agentos.task_heads") == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_under_load_loses_and_doubles_nothing(pool: Pool, sweeping: Sweeping) -> None:
    victim = pool.worker(concurrency=50)
    held = [pool.submit("wait") for _ in range(5)]
    until(lambda: len(pool.effects("waiting")) == 5)
    pool.db.run(submit_many(6000))
    pool.worker(concurrency=50, wait=False)
    until(lambda: pool.row(ENDED)[0] > 1000)
    victim.kill()
    pool.log.with_name("go").touch()
    until_counted(lambda: pool.row(ENDED)[0], 6005)
    assert [pool.counters(handle)[1:] for handle in held] == [(0, 1)] * 5
    ran = Counter(pool.effects("ran"))
    assert len(ran) == 6000
    again = {line.split(" ")[1] for line, n in ran.items() if n > 1}
    crashed = {
        task.split("-")[1]
        for (task,) in pool.rows("SELECT task_id FROM agentos.events WHERE event = 'lease_reclaimed'")
    }
    assert again <= crashed  # what ran and was not recorded runs again, nothing else
    assert pool.row("SELECT max(crashes), max(failures) FROM agentos.outcomes") == (1, 0)
