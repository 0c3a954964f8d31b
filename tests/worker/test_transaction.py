"""`ctx.transaction()`: the handler's own rows and what its context records commit together under the fence, or not."""

# ruff: noqa: PT012  what a block undoes is what stands in it

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Sweeping

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.core.checkpoints import CheckpointManager
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import (
    EffectInTransaction,
    TaskCancelled,
    TaskFailed,
    TransactionAborted,
    TransactionOpen,
    TransactionTimeout,
    WrongDatabase,
    WrongIsolation,
)
from agentos.store.sessions import process_name

Conn = psycopg.Connection[Any]
Again = ValueError("again, please")
PAY = "INSERT INTO payments (what) VALUES ('tea')"


@pytest.fixture
def payments(conn: Conn) -> Conn:
    """The user's own table, beside the engine's."""
    conn.execute("CREATE TABLE payments (what text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    return conn


@pytest.fixture
def app(database_dsn: str) -> App:
    return App(dsn=database_dsn)


def kept(conn: Conn) -> tuple[int, int, int, int]:
    """How many payments, checkpoints, ledger and cache rows there are."""
    tables = ("payments", "agentos.checkpoints", "agentos.tool_ledger", "agentos.llm_cache")
    counts = (
        conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*each.split(".")))).fetchone()
        for each in tables
    )
    payments, checkpoints, calls, outputs = (row[0] for row in counts if row)
    return payments, checkpoints, calls, outputs


async def run(app: App, dsn: str, kind: str = "pay", **settings: Any) -> Any:
    handle = app.submit(kind)
    async with serving(app, dsn, **settings):
        return await outcome(handle)


async def test_own_rows_and_what_the_context_records_commit_together(
    app: App, database_dsn: str, payments: Conn
) -> None:
    before: list[Any] = []

    @app.task("pay")
    async def pay(ctx: TaskContext) -> str:
        async with ctx.transaction() as mine:
            await mine.execute(PAY)
            assert await ctx.record("charge", {"eur": 5}, {"id": 1}) == {"id": 1}
            assert await ctx.record_llm("plan", prompt="p", output="o", model="m") == "o"
            await ctx.checkpoint("state_transition", {"paid": True})
            before.append(kept(payments))
        return str((await ctx.llm("plan", prompt="p", model="m"), ctx._scope.ordinal))

    assert await run(app, database_dsn) == "('o', 1)"
    assert before == [(0, 0, 0, 0)]
    assert kept(payments) == (1, 1, 1, 1)


def test_a_blocking_handler_has_the_same_with_psycopg(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    def pay(ctx: BlockingContext) -> str:
        with ctx.transaction() as mine:
            mine.execute("SET application_name = 'mine'")
            mine.execute(PAY)
            ctx.record("charge", {"eur": 5}, {"id": 1})
            assert ctx.record_llm("plan", prompt="p", output="o", model="m") == "o"
            ctx.checkpoint("state_transition", {"paid": True})
            assert kept(payments) == (0, 0, 0, 0)
        with ctx.transaction() as mine:
            return str(mine.execute("SHOW application_name").fetchone())

    assert asyncio.run(run(app, database_dsn)) == f"('agentos {process_name()}',)"
    assert kept(payments) == (1, 1, 1, 1)


@pytest.mark.parametrize("own", [KeyError, ConnectionRefusedError], ids=["plain", "looks like an outage"])
@pytest.mark.parametrize("blocking", [False, True], ids=["awaited", "blocking"])
async def test_an_exception_undoes_all_of_it_and_the_context_counts_as_if_it_had_not_been(
    app: App, database_dsn: str, payments: Conn, hurrying: Sweeping, blocking: bool, own: type[Exception]
) -> None:
    runs: list[str] = []
    app.tool("touch")(runs.append)

    @app.task("pay")
    async def pay(ctx: TaskContext) -> list[Any]:
        await ctx.tool("touch", "one")
        with pytest.raises(own):
            async with ctx.transaction() as mine:
                await mine.execute(PAY)
                await ctx.record("touch", "one", {"by": "hand"})
                await ctx.checkpoint("state_transition", {"paid": True})
                raise own
        counted = [ctx._scope.ordinal, kept(payments)]
        await ctx.tool("touch", "one")  # the second one, not the third
        if ctx.attempt == 1:
            raise Again
        return counted

    @app.task("pay_blocking")
    def pay_blocking(ctx: BlockingContext) -> list[Any]:
        ctx.tool("touch", "one")
        with pytest.raises(own), ctx.transaction() as mine:
            mine.execute(PAY)
            ctx.record("touch", "one", {"by": "hand"})
            ctx.checkpoint("state_transition", {"paid": True})
            raise own
        counted = [ctx._context._scope.ordinal, kept(payments)]
        ctx.tool("touch", "one")
        if ctx.attempt == 1:
            raise Again
        return counted

    assert await run(app, database_dsn, "pay_blocking" if blocking else "pay") == [0, [0, 0, 2, 0]]
    assert runs == ["one", "one"]


async def test_no_tool_model_or_wait_runs_inside_but_what_is_recorded_is_replayed(
    app: App, database_dsn: str, payments: Conn, hurrying: Sweeping
) -> None:
    runs: list[str] = []
    app.tool("touch")(runs.append)

    @app.task("pay")
    async def pay(ctx: TaskContext) -> None:
        await ctx.tool("touch", "kept", key="k")
        await ctx.llm("plan", prompt="p", model="m", generate=lambda prompt: "o")
        async with ctx.transaction():
            await ctx.tool("touch", "kept", key="k")
            assert await ctx.llm("plan", prompt="p", model="m", generate=lambda prompt: "other") == "o"
            with pytest.raises(EffectInTransaction, match="would run inside"):
                await ctx.llm("plan", prompt="new", model="m", generate=lambda prompt: "o")
            await ctx.tool("touch", "new")

    error = await run(app, database_dsn)
    assert isinstance(error, TaskFailed)
    assert "a rollback cannot undo it" in str(error)
    assert runs == ["kept"]
    assert kept(payments) == (0, 0, 1, 1)


async def test_nesting_is_refused_and_a_savepoint_is_the_way(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> str:
        async with ctx.transaction() as mine:
            with pytest.raises(asyncpg.UndefinedTableError):
                async with mine.transaction():
                    await mine.execute("SELECT * FROM nothing")
            await mine.execute(PAY)
            with pytest.raises(TransactionOpen):
                async with ctx.transaction():
                    pass
        return "paid"

    assert await run(app, database_dsn) == "paid"
    assert kept(payments)[0] == 1


@pytest.mark.parametrize("blocking", [False, True], ids=["awaited", "blocking"])
async def test_a_failed_statement_whose_error_was_caught_is_said_and_not_a_silent_rollback(
    app: App, database_dsn: str, payments: Conn, blocking: bool
) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> str:
        with pytest.raises(TransactionAborted):
            async with ctx.transaction() as mine:
                await mine.execute(PAY)
                with pytest.raises(asyncpg.UndefinedTableError):
                    await mine.execute("SELECT * FROM nothing")
        return "said"

    @app.task("pay_blocking")
    def pay_blocking(ctx: BlockingContext) -> str:
        with pytest.raises(TransactionAborted), ctx.transaction() as mine:
            mine.execute(PAY)
            with pytest.raises(psycopg.errors.UndefinedTable):
                mine.execute("SELECT * FROM nothing")
        return "said"

    assert await run(app, database_dsn, "pay_blocking" if blocking else "pay") == "said"
    assert kept(payments)[0] == 0


@pytest.mark.parametrize("blocking", [False, True], ids=["awaited", "blocking"])
async def test_a_commit_that_is_refused_raises_the_drivers_error_and_counts_nothing(
    app: App, database_dsn: str, payments: Conn, blocking: bool
) -> None:
    payments.execute("INSERT INTO payments VALUES ('tea')")

    @app.task("pay")
    async def pay(ctx: TaskContext) -> int:
        with pytest.raises(asyncpg.UniqueViolationError):
            async with ctx.transaction() as mine:
                await mine.execute(PAY)  # its constraint is deferred
                await ctx.checkpoint("state_transition", {})
        return ctx._scope.ordinal

    @app.task("pay_blocking")
    def pay_blocking(ctx: BlockingContext) -> int:
        with pytest.raises(psycopg.errors.UniqueViolation), ctx.transaction() as mine:
            mine.execute(PAY)
            ctx.checkpoint("state_transition", {})
        return ctx._context._scope.ordinal

    assert await run(app, database_dsn, "pay_blocking" if blocking else "pay") == 0
    assert kept(payments) == (1, 0, 0, 0)


async def test_a_transaction_that_is_open_too_long_is_ended_and_the_next_one_works(
    app: App, database_dsn: str, payments: Conn
) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> str:
        with pytest.raises(TransactionTimeout, match=r"it may for 2 s"):
            async with ctx.transaction() as mine:
                await mine.execute(PAY)
                await asyncio.Event().wait()
        with pytest.raises(TransactionTimeout):
            async with ctx.transaction() as mine:
                await mine.execute("SELECT pg_sleep(30)")
        async with ctx.transaction() as mine:
            await mine.execute(PAY)
        return "paid"

    assert await run(app, database_dsn, ttl_s=6) == "paid"  # the last one ends in time
    assert kept(payments)[0] == 1


def test_a_blocking_handler_that_is_too_slow_is_told(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    def pay(ctx: BlockingContext) -> str:
        with pytest.raises(TransactionTimeout), ctx.transaction() as mine:
            mine.execute(PAY)
            mine.execute("SELECT pg_sleep(30)")
        with pytest.raises(TransactionTimeout), ctx.transaction() as mine:
            mine.execute(PAY)
            payments.execute("SELECT pg_sleep(1.5)")  # busy elsewhere
        return "told"

    assert asyncio.run(run(app, database_dsn, ttl_s=3)) == "told"
    assert kept(payments)[0] == 0


async def test_a_cancelled_task_opens_no_transaction(app: App, database_dsn: str, db: Database) -> None:
    seen: list[str] = []

    @app.task("pay")
    async def pay(ctx: TaskContext) -> None:
        db.run(tasks.cancel_task(ctx.task_id))
        try:
            async with ctx.transaction():
                seen.append("opened")
        except TaskCancelled:
            seen.append("refused")
            raise

    await run(app, database_dsn)
    assert seen == ["refused"]


async def test_a_sibling_outside_the_block_is_not_in_it(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> None:
        ready, go = asyncio.Event(), asyncio.Event()

        async def beside() -> None:
            ready.set()
            await go.wait()
            await ctx.checkpoint("iteration_end", "beside")  # waits at the lease's row for the end of the block

        sibling = asyncio.create_task(beside())
        await ready.wait()
        with pytest.raises(KeyError):
            async with ctx.transaction() as mine:
                await mine.execute(PAY)
                go.set()
                await asyncio.sleep(0.05)
                raise KeyError
        await sibling

    await run(app, database_dsn)
    assert kept(payments)[:2] == (0, 1)


# -- on a connection that the caller has ---------------------------------------------------------------------------


async def test_the_callers_own_transaction_is_joined_and_is_his_to_commit(
    app: App, database_dsn: str, payments: Conn
) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> list[int]:
        mine = await asyncpg.connect(database_dsn)
        counted = []
        for commits in (False, True):
            his = mine.transaction()
            await his.start()
            await mine.execute(PAY)
            async with ctx.transaction(conn=mine):
                await ctx.checkpoint("state_transition", {"commits": commits})
            with pytest.raises(TransactionOpen, match="still open"):
                await ctx.results()
            await (his.commit() if commits else his.rollback())
            await ctx.results()
            counted.append(ctx._scope.ordinal)
        await mine.close()
        return counted

    assert await run(app, database_dsn) == [0, 1]
    assert kept(payments)[:2] == (1, 1)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_on_a_connection_without_a_transaction_it_is_begun_and_committed(
    app: App, database_dsn: str, payments: Conn, driver: str
) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> None:
        mine: Any
        if driver == "asyncpg":
            mine = await asyncpg.connect(database_dsn)
        else:
            mine = await psycopg.AsyncConnection.connect(database_dsn, autocommit=True)
        async with ctx.transaction(conn=mine) as same:
            assert same is mine
            await mine.execute(PAY)
            await ctx.checkpoint("state_transition", {})
        await mine.close()

    assert await run(app, database_dsn) is None
    assert kept(payments)[:2] == (1, 1)


def test_a_blocking_handler_joins_its_psycopg_connection(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    def pay(ctx: BlockingContext) -> int:
        with psycopg.connect(database_dsn) as mine:  # not autocommit: its first statement begins his transaction
            mine.execute(PAY)
            with ctx.transaction(conn=mine):
                ctx.checkpoint("state_transition", {})
            assert kept(payments) == (0, 0, 0, 0)
            mine.commit()
        ctx.results()
        return int(ctx._context._scope.ordinal)

    assert asyncio.run(run(app, database_dsn)) == 1
    assert kept(payments)[:2] == (1, 1)


async def test_another_database_or_isolation_is_refused_and_nothing_is_written(
    app: App, database_dsn: str, test_server: Any, payments: Conn
) -> None:
    elsewhere = test_server.create()

    @app.task("pay")
    async def pay(ctx: TaskContext) -> str:
        other = await asyncpg.connect(elsewhere)
        with pytest.raises(WrongDatabase, match="not on the database of this task"):
            async with ctx.transaction(conn=other):
                pass
        await other.close()
        mine = await asyncpg.connect(database_dsn)
        with pytest.raises(WrongIsolation):
            async with mine.transaction(isolation="repeatable_read"), ctx.transaction(conn=mine):
                pass
        await mine.close()
        return "refused"

    try:
        assert await run(app, database_dsn) == "refused"
    finally:
        test_server.drop(elsewhere)


def test_a_manager_inside_a_blocking_transaction_is_in_it(app: App, database_dsn: str, payments: Conn) -> None:
    @app.task("pay")
    def pay(ctx: BlockingContext) -> None:
        manager = CheckpointManager()
        step = manager.begin_step(ctx.task_id, "manual_checkpoint", {})
        with pytest.raises(KeyError), ctx.transaction():
            manager.commit_step(step)
            raise KeyError
        assert kept(payments)[1] == 0

    assert asyncio.run(run(app, database_dsn)) is None


async def test_a_manager_inside_an_async_handlers_transaction_is_refused(app: App, database_dsn: str) -> None:
    @app.task("pay")
    async def pay(ctx: TaskContext) -> None:
        manager = CheckpointManager()
        step = manager.begin_step(ctx.task_id, "manual_checkpoint", {})
        async with ctx.transaction():
            with pytest.raises(TransactionOpen, match="blocking call"):
                manager.commit_step(step)

    assert await run(app, database_dsn) is None
