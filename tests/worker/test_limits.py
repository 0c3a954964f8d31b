"""Limits over real workers, one of which is killed; queues that stand still; tenants."""

import threading
from collections import Counter

import psycopg
from tests.coordinator.daemon import until
from tests.worker import limited_app
from tests.worker.pool import Pool

from agentos.core.app import App, TaskHandle
from agentos.store.calls import flow

APP = "tests.worker.limited_app:app"
BY_KEY = """
    SELECT l.kind || ' ' || l.limit_key, count(*) FROM agentos.lease_held h
      JOIN agentos.lanes l ON l.lane = abs(h.lane) GROUP BY 1
"""


def submitting(pool: Pool) -> App:
    """The app of the workers, submitting to the test's database."""
    app = App(dsn=pool.dsn)
    app.handlers.update(limited_app.app.handlers)
    return app


def results(handles: list[TaskHandle]) -> list[object]:
    return [handle.result(60) for handle in handles]


def test_a_limit_per_key_holds_over_three_workers_one_of_which_is_killed(pool: Pool) -> None:
    pool.coordinator()
    workers = [pool.worker(app=APP) for _ in range(3)]
    most: Counter[str] = Counter()
    over = threading.Event()

    def witness() -> None:
        with psycopg.connect(pool.dsn, autocommit=True) as conn:
            while not over.is_set():
                for key, n in conn.execute(BY_KEY).fetchall():
                    most[key] = max(most[key], n)

    looking = threading.Thread(target=witness)
    looking.start()
    app = submitting(pool)
    handles = [app.submit("page", {"site": site, "n": n}) for n in range(10) for site in ("a", "b")]
    until(lambda: pool.rows("SELECT 1 FROM agentos.lease_held"), what="a held item")
    workers[0].kill()
    assert results(list(handles)) == [n for n in range(10) for _ in "ab"]
    over.set()
    looking.join()
    print(f"limit 2 per site: at most {dict(most)} held")
    assert most == {"page a": 2, "page b": 2}


def test_a_place_of_a_killed_worker_is_free_when_its_lease_is_taken(pool: Pool) -> None:
    first = pool.worker(app=APP)
    app = submitting(pool)
    one, two = app.submit("slow"), app.submit("slow")
    running = until(lambda: pool.rows("SELECT task_id FROM agentos.lease_held JOIN agentos.work_items USING (item_id)"))
    first.kill()
    pool.worker(app=APP)
    assert pool.rows("SELECT task_id FROM agentos.lease_held JOIN agentos.work_items USING (item_id)") == running
    pool.coordinator()
    held = "SELECT h.attempt FROM agentos.lease_held h JOIN agentos.workers k USING (worker_id) WHERE k.state = 'alive'"
    until(lambda: pool.rows(held), what="the place taken again")
    assert len(pool.rows("SELECT 1 FROM agentos.lease_held")) == 1
    one.cancel()
    two.cancel()


def test_a_rate_and_a_pause_hold_for_workers_that_serve_already(pool: Pool) -> None:
    pool.worker("--queue", "default", "--queue", "other", app=APP)
    app = submitting(pool)
    handles = [app.submit("call", {"n": n}) for n in range(5)]
    ended = "SELECT count(*)::integer FROM agentos.outcomes"
    until(lambda: pool.row(ended)[0] == 3, what="three calls")
    assert pool.db.run(flow.pause_queue("other"))
    app.submit("page", {"site": "a", "n": 1}, queue="other")
    free = app.submit("page", {"site": "a", "n": 2})
    assert free.result(60) == 2
    assert pool.row(ended)[0] == 4
    assert pool.db.run(flow.resume_queue("other"))
    assert pool.db.run(flow.set_limit("kind", "call", "rate", 5, period_s=3600.0))
    assert results(list(handles)) == list(range(5))
    until(lambda: pool.row(ended)[0] == 7, what="the page of the queue that was paused")


def test_the_first_item_of_a_new_tenant_is_not_kept_waiting_with_or_without_a_wake_up(pool: Pool) -> None:
    pool.worker("--no-listen", app=APP)
    app = submitting(pool)
    assert app.submit("page", {"site": "a", "n": 1}, tenant="acme").result(5) == 1
    for tenant in ("b", "c"):
        assert app.submit("page", {"site": "a", "n": 1}, tenant=tenant).result(5) == 1
