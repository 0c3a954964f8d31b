"""`App.asubmit` and `App.asubmit_many`: with rows of the caller's, over both drivers; new kinds keep nobody waiting."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from tests.store import engine
from tests.worker.inprocess import serving

from agentos.core.app import App, Budget, TaskContext
from agentos.core.app.submission import SubmitManyOptions, SubmitOptions
from agentos.store.connect import Database
from agentos.store.errors import IdempotencyConflict, InvalidArguments, InvalidInput, TaskExists


@pytest.fixture
def app(database_dsn: str, conn: psycopg.Connection[Any]) -> App:
    app = App()
    conn.execute("CREATE TABLE orders (id integer)")

    @app.task("double", queue="sums")
    async def double(ctx: TaskContext, n: int) -> int:
        return 2 * n

    return app


@pytest.fixture(params=["asyncpg", "psycopg"])
async def mine(request: pytest.FixtureRequest, database_dsn: str) -> AsyncIterator[Any]:
    """A connection of the caller's; transactions are begun and ended in words, which both drivers take."""
    if request.param == "asyncpg":
        conn: Any = await asyncpg.connect(database_dsn)
    else:
        conn = await psycopg.AsyncConnection.connect(database_dsn, autocommit=True)
    yield conn
    await conn.close()


async def order(app: App, mine: Any) -> list[Any]:
    """A row of the caller's and three tasks, in a transaction that stays open."""
    await mine.execute("BEGIN")
    await mine.execute("INSERT INTO orders VALUES (1)")
    one = await app.asubmit("double", {"n": 1}, conn=mine, budget=Budget(max_calls=3), deadline_s=600, priority=2)
    return [one, *await app.asubmit_many("double", [{"n": 2}, {"n": 3}], conn=mine, deadline_s=600)]


def counts(conn: psycopg.Connection[Any]) -> tuple[int, ...]:
    """Rows of the caller's, and of all that a task with its options consists of."""
    return tuple(engine.count(conn, table) for table in ("task_records", "work_items", "lease_ready", "deadlines"))


async def test_rolled_back_nothing_is_there_committed_all_of_it_runs(
    app: App, mine: Any, conn: psycopg.Connection[Any], database_dsn: str
) -> None:
    await order(app, mine)
    await mine.execute("ROLLBACK")
    assert counts(conn) == (0, 0, 0, 0)
    handles = await order(app, mine)
    assert counts(conn) == (0, 0, 0, 0)
    await mine.execute("COMMIT")
    assert counts(conn) == (3, 3, 3, 3)
    assert conn.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    async with serving(app, database_dsn, queues=("sums", "default")):
        assert [await handle.aresult(60) for handle in handles] == [2, 4, 6]


async def test_after_the_commit_wake_tells_the_workers_of_its_queue(
    app: App, mine: Any, conn: psycopg.Connection[Any], database_dsn: str
) -> None:
    conn.execute("LISTEN agentos_wake")
    handles = await order(app, mine)
    await mine.execute("COMMIT")
    assert list(conn.notifies(timeout=0)) == []
    await handles[0].wake()
    assert [each.payload for each in conn.notifies(timeout=10, stop_after=1)] == ["sums"]
    with psycopg.connect(database_dsn) as blocking:
        handle = app.submit("double", {"n": 1}, queue="others", conn=blocking)
    handle.wake()
    assert [each.payload for each in conn.notifies(timeout=10, stop_after=1)] == ["others"]


async def test_without_a_connection_it_is_submitted_and_the_workers_are_told(
    app: App, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("LISTEN agentos_wake")
    handle = await app.asubmit("double", {"n": 1})
    assert [each.payload for each in conn.notifies(timeout=10, stop_after=1)] == ["sums"]
    assert handle.status() == "created"
    assert len(await app.asubmit_many("double", ({"n": n} for n in range(3)))) == 3
    assert await app.asubmit_many("double", []) == []


async def test_what_is_refused_among_many_leaves_the_transaction_usable(app: App, mine: Any, db: Database) -> None:
    await app.asubmit("double", {"n": 1}, task_id="taken")
    await mine.execute("BEGIN")
    with pytest.raises(TaskExists):
        await app.asubmit_many("double", [{"n": 1}, {"n": 2}], task_ids=["free", "taken"], conn=mine)
    with pytest.raises(InvalidArguments):
        await app.asubmit_many("double", [{"n": 1}, {"n": "many"}], conn=mine)
    await app.asubmit("double", {"n": 1}, task_id="other", conn=mine)
    await mine.execute("COMMIT")
    with db.connection() as conn:
        assert conn.execute("SELECT task_id FROM agentos.task_records ORDER BY 1").fetchall() == [
            ("other",),
            ("taken",),
        ]


async def test_many_without_a_transaction_are_all_there_or_none(
    app: App, mine: Any, conn: psycopg.Connection[Any]
) -> None:
    with pytest.raises(TaskExists):
        await app.asubmit_many("double", [{"n": 1}, {"n": 2}], task_ids=["twice", "twice"], conn=mine)
    assert counts(conn)[0] == 0
    await app.asubmit_many("double", [{"n": 1}, {"n": 2}], conn=mine)
    assert counts(conn)[0] == 2


async def test_outside_autocommit_it_is_the_callers_to_commit_also_when_it_is_his_first_statement(
    app: App, conn: psycopg.Connection[Any], database_dsn: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_dsn) as mine:
        await app.asubmit_many("double", [{"n": 1}], conn=mine)
        await mine.rollback()
    with psycopg.connect(database_dsn) as blocking:
        app.submit_many("double", [{"n": 1}], conn=blocking)
        blocking.rollback()
    assert counts(conn)[0] == 0


@pytest.mark.parametrize("way", ["asyncpg", "psycopg", "blocking"])
async def test_a_new_kind_in_an_open_transaction_keeps_no_other_submitter_waiting(
    app: App, database_dsn: str, way: str
) -> None:
    if way == "blocking":
        with psycopg.connect(database_dsn) as blocking:
            app.submit("double", {"n": 1}, conn=blocking)
            async with asyncio.timeout(20):
                await App().asubmit("double", {"n": 2}, queue="sums")
    else:
        mine: Any = await (asyncpg.connect if way == "asyncpg" else psycopg.AsyncConnection.connect)(database_dsn)
        await mine.execute("BEGIN")
        await app.asubmit_many("double", [{"n": 1}], conn=mine)
        async with asyncio.timeout(20):
            await App().asubmit("double", {"n": 2}, queue="sums")
        await mine.close()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_new_kind_goes_into_a_transaction_with_a_fixed_snapshot_too(
    app: App, mine: Any, conn: psycopg.Connection[Any], level: str
) -> None:
    await mine.execute(f"BEGIN ISOLATION LEVEL {level}")
    await mine.execute("INSERT INTO orders VALUES (1)")
    await app.asubmit("double", {"n": 1}, conn=mine)
    await app.asubmit("double", {"n": 2}, conn=mine)
    await mine.execute("COMMIT")
    assert counts(conn)[0] == 2


async def test_a_kind_that_the_callers_transaction_made_itself_does_not_wait_for_itself(
    app: App, mine: Any, conn: psycopg.Connection[Any]
) -> None:
    await mine.execute("BEGIN")
    await mine.execute("SELECT agentos.lane_of('sums', 'double', 0)")
    async with asyncio.timeout(10):
        await app.asubmit("double", {"n": 1}, conn=mine)
    await mine.execute("COMMIT")
    assert counts(conn)[0] == 1


async def test_an_idempotency_key_is_the_callers_to_commit_and_said_again_gives_the_same_task(
    app: App, mine: Any, conn: psycopg.Connection[Any]
) -> None:
    await mine.execute("BEGIN")
    await app.asubmit("double", {"n": 1}, conn=mine, idempotency_key="k")
    await mine.execute("ROLLBACK")
    await mine.execute("BEGIN")
    first = await app.asubmit("double", {"n": 1}, conn=mine, idempotency_key="k")
    again = await app.asubmit("double", {"n": 1}, conn=mine, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await app.asubmit("double", {"n": 2}, conn=mine, idempotency_key="k")
    await mine.execute("COMMIT")
    assert (first.created, again.created, again.task_id) == (True, False, first.task_id)
    assert (await app.asubmit("double", {"n": 1}, idempotency_key="k")).task_id == first.task_id
    assert counts(conn)[0] == 1


async def test_a_connection_that_cannot_be_joined_is_refused(
    app: App, mine: Any, conn: psycopg.Connection[Any]
) -> None:
    with pytest.raises(InvalidInput, match="Connection"):
        await app.asubmit("double", {"n": 1}, conn=conn)
    with pytest.raises(InvalidInput, match="asubmit"):
        app.submit("double", {"n": 1}, conn=mine)


async def test_a_handlers_transaction_takes_tasks_along(app: App, database_dsn: str) -> None:
    @app.task("parent")
    async def parent(ctx: TaskContext) -> int:
        if ctx.snapshot is None:
            async with ctx.transaction() as conn:
                handle = await app.asubmit("double", {"n": 4}, task_id="child", conn=conn)
                await ctx.checkpoint("state_transition", {"submitted": True})
            await handle.wake()
        return int(await app.handle("child").aresult(60))

    async with serving(app, database_dsn, queues=("sums", "default")):
        assert await (await app.asubmit("parent")).aresult(60) == 8


@pytest.mark.parametrize(("function", "options"), [(App.submit, SubmitOptions), (App.submit_many, SubmitManyOptions)])
def test_it_takes_the_options_of_the_blocking_one(function: Callable[..., Any], options: type) -> None:
    named = inspect.signature(function).parameters.values()
    assert {each.name for each in named if each.kind is each.KEYWORD_ONLY} - {"conn"} == set(options.__annotations__)
