"""What a submit says of flow control: tenants, keys, uniqueness, and what is refused before anything happens."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from agentos.core.app import App, Limit, Rate, TaskContext
from agentos.store.calls import flow
from agentos.store.connect import Database
from agentos.store.errors import ConfigInvalid, InvalidInput, QueueFull, TaskExists
from agentos.testing.clock import Clock

LANES = "SELECT kind, fairness_key, limit_key, count(*)::integer FROM agentos.work_items JOIN agentos.lanes USING (lane) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"  # noqa: E501


@pytest.fixture
def app(database_dsn: str) -> App:
    made = App(dsn=database_dsn)

    @made.task("crawl", concurrency=Limit(2, key="site"), rate=Rate(100, per_s=60))
    async def crawl(ctx: TaskContext, site: Any = None) -> None: ...

    return made


def test_the_key_of_a_limit_comes_from_the_payload_or_from_the_call(app: App, conn: psycopg.Connection[Any]) -> None:
    app.submit("crawl", {"site": "a.example"}, tenant="acme")
    app.submit("crawl", {"site": 7})
    app.submit("crawl", {"site": "a.example"}, concurrency_key="mine")
    app.submit("crawl")
    app.submit_many("crawl", [{"site": site} for site in "aba"])
    assert conn.execute(LANES.encode()).fetchall() == [
        ("crawl", "", "", 1), ("crawl", "", "7", 1), ("crawl", "", "a", 2), ("crawl", "", "b", 1),
        ("crawl", "", "mine", 1), ("crawl", "acme", "a.example", 1),
    ]  # fmt: skip


async def test_in_the_callers_transaction_lanes_of_keys_are_made_beside_it(app: App, database_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_dsn) as mine:
        await app.asubmit_many("crawl", [{"site": "x"}, {"site": "y"}], tenant="acme", conn=mine)
        other = App(dsn=database_dsn)
        assert other.submit("crawl", {"site": "x"}, tenant="acme", concurrency_key="x").created
        await mine.rollback()


@pytest.mark.parametrize("make", [
    lambda: Limit(-1), lambda: Limit(True), lambda: Rate(1, per_s=0), lambda: Rate(20_000, per_s=1),
    lambda: App().task("x", concurrency=5),  # type: ignore[arg-type]
    lambda: App().task("x", concurrency=Limit(1, key="a"), rate=Rate(1, per_s=1, key="b")),
])  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused_when_it_is_declared(make: Any) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        make()
    assert refused.value.hint


@pytest.mark.parametrize("options", [
    {"tenant": "x" * 256}, {"tenant": 5}, {"concurrency_key": "\0"}, {"unique_key": "k"}, {"unique_for_s": 0},
    {"unique_for_s": 5, "idempotency_key": "k"},
])  # fmt: skip
def test_options_that_make_no_sense_are_refused_before_anything_happened(
    app: App, conn: psycopg.Connection[Any], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        app.submit("crawl", **options)
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)


def test_eight_who_submit_a_unique_task_at_once_get_one(app: App, conn: psycopg.Connection[Any]) -> None:
    with ThreadPoolExecutor(8) as threads:
        said = [threads.submit(app.submit, "crawl", {"site": "a"}, unique_for_s=60) for _ in range(8)]
        handles = [each.result() for each in said]
    assert len({handle.task_id for handle in handles}) == 1
    assert [handle.created for handle in handles].count(True) == 1
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (1,)


def test_a_unique_submit_is_free_again_after_its_window(app: App, clock: Clock) -> None:
    first = app.submit("crawl", {"site": "a"}, unique_for_s=60)
    assert app.submit("crawl", {"site": "b"}, unique_for_s=60).created, "another payload"
    clock.advance(59)
    assert app.submit("crawl", {"site": "a"}, unique_for_s=60).task_id == first.task_id
    with pytest.raises(TaskExists, match=first.task_id):
        app.submit("crawl", {"site": "a"}, unique_for_s=60, on_duplicate="raise")
    clock.advance(2)
    again = app.submit("crawl", {"site": "a"}, unique_for_s=60)
    assert (again.created, again.task_id == first.task_id) == (True, False)
    assert app.submit("crawl", {"site": "z"}, unique_for_s=60, unique_key="k").created
    assert not app.submit("crawl", {"site": "y"}, unique_for_s=60, unique_key="k").created


def test_a_full_queue_refuses_one_and_many_and_what_the_caller_wrote_stays_his(
    app: App, db: Database, database_dsn: str
) -> None:
    db.run(flow.set_depth("default", 2))
    with psycopg.connect(database_dsn) as mine:
        with pytest.raises(QueueFull):
            app.submit_many("crawl", [{"site": "a"}, {"site": "b"}, {"site": "c"}], conn=mine)
        assert len(app.submit_many("crawl", [{"site": "a"}, {"site": "b"}], conn=mine)) == 2
        mine.commit()
    with pytest.raises(QueueFull, match="'default' takes 0 more"):
        app.submit("crawl")
