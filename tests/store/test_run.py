"""Calls and flows: one logic, driven blocking and awaited; every driver's error as one of ours."""

import asyncio
from typing import Any, LiteralString

import asyncpg
import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import tasks
from agentos.store.connect import AsyncDatabase, Database, OnConnection
from agentos.store.errors import (
    AgentOSError,
    DatabaseBusy,
    DatabaseUnavailable,
    InvalidValue,
    MissingPrivilege,
    SchemaMissing,
    TaskExists,
    UnknownTask,
)
from agentos.store.run import Call, Flow, Invoke, Sleep, adrive, arun_call, do, drive, invoke


def one(sql: LiteralString, *args: Any) -> Call[Any]:
    return Call(sql, args, lambda rows: rows[0][0] if not isinstance(rows[0], dict) else next(iter(rows[0].values())))


def double(value: int) -> int:
    return 2 * value


async def adouble(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def awaitable(value: int) -> Any:
    """A plain function that returns a coroutine."""
    return adouble(value)


def flow(fn: Any) -> Flow[list[Any]]:
    first = yield from do(one("SELECT $1::bigint + 1", 41))
    yield Sleep(0.001)
    second = yield from invoke(fn, first)
    try:
        yield from do(tasks.task_progress("nowhere"))
    except UnknownTask as exc:
        return [first, second, type(exc).__name__]
    return []


def test_a_flow_is_driven_blocking(db: Database) -> None:
    assert drive(db, flow(double)) == [42, 84, "UnknownTask"]


@pytest.mark.parametrize("fn", [double, adouble, awaitable])
async def test_the_same_flow_is_driven_awaited(adb: AsyncDatabase, fn: Any) -> None:
    assert await adrive(adb, flow(fn)) == [42, 84, "UnknownTask"]


def test_a_blocking_flow_refuses_async_code_with_the_fix(db: Database) -> None:
    with pytest.raises(AgentOSError, match="adouble") as caught:
        drive(db, flow(adouble))
    assert "async API" in (caught.value.hint or "")


async def test_a_cancelled_flow_can_still_clean_up(adb: AsyncDatabase) -> None:
    cleaned: list[Any] = []

    def cleaning() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            cleaned.append((yield from do(one("SELECT $1::integer", 7))))

    running = asyncio.create_task(adrive(adb, cleaning()))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaned == [7]


def test_an_error_of_user_code_comes_out_of_the_flow_as_it_is(db: Database) -> None:
    def fails() -> None:
        raise KeyError("mine")

    def calling() -> Flow[Any]:
        return (yield Invoke(fails))

    with pytest.raises(KeyError, match="mine"):
        drive(db, calling())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 / 0", InvalidValue),
        ("SELECT 'x'::integer", InvalidValue),
        ("SELECT '{'::json", InvalidValue),
        ("SELECT agentos.no_such_function()", SchemaMissing),
        ("SELECT * FROM agentos.no_such_table", SchemaMissing),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseUnavailable),
    ],
)
def test_each_drivers_error_is_one_of_ours(runner: Driver, sql: LiteralString, expected: type[AgentOSError]) -> None:
    with pytest.raises(expected) as caught:
        runner.run(one(sql))
    assert type(caught.value) is expected
    assert caught.value.hint
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("setting", ["statement_timeout = '20ms'", "lock_timeout = '20ms'"])
def test_what_takes_too_long_is_busy_and_the_session_lives(runner: Driver, setting: LiteralString) -> None:
    session, other = runner.session(), runner.session()
    other.begin()
    other.execute("SELECT pg_advisory_xact_lock(4711)")
    session.execute("SET " + setting)
    with pytest.raises(DatabaseBusy) as caught:
        session.run(one("SELECT pg_advisory_xact_lock(4711)"))
    assert "nothing was written" in (caught.value.hint or "")
    assert session.run(one("SELECT 1")) == 1


async def test_a_connection_whose_state_the_driver_lost_is_dropped_and_counts_as_not_answering() -> None:
    class Confused:
        ended = False

        async def fetch(self, *_: Any) -> Any:
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

        def terminate(self) -> None:
            self.ended = True

    conn = Confused()
    with pytest.raises(DatabaseUnavailable):
        await arun_call(conn, one("SELECT 1"))
    assert conn.ended


def test_a_read_only_server_counts_as_not_answering(runner: Driver) -> None:
    session = runner.session()
    session.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailable):
        engine.submit(session)


def test_what_the_role_may_not_do_is_told(runner: Driver) -> None:
    session = runner.session()
    session.execute("SET ROLE pg_monitor")
    with pytest.raises(MissingPrivilege):
        session.run(tasks.list_tasks())


def test_an_error_of_the_engine_carries_its_hint_and_code(runner: Driver) -> None:
    engine.submit(runner)
    with pytest.raises(TaskExists) as caught:
        engine.submit(runner)
    assert caught.value.sqlstate == "AG006"
    assert str(caught.value).endswith("Fix: choose another task_id, or leave it out and one is made")


def test_a_pool_goes_on_after_its_connections_were_cut(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    runner.run(tasks.list_tasks())
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(10):
        try:
            assert runner.run(tasks.list_tasks()) == ()
            break
        except DatabaseUnavailable:
            continue
    else:
        pytest.fail("the pool did not recover")


def test_the_default_database_is_shared_by_the_process(database_dsn: str) -> None:
    first = Database.default()
    assert Database.default() is first
    assert first.dsn == database_dsn


def test_a_call_on_somebodys_connection_is_part_of_their_transaction(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction(force_rollback=True):
        OnConnection(conn).run(tasks.submit("task-1", "shell", "t", "{}"))
        assert OnConnection(conn).run(tasks.get_task("task-1")) is not None
    assert OnConnection(conn).run(tasks.get_task("task-1")) is None


async def test_an_awaited_pool_on_a_server_that_is_not_there_says_so() -> None:
    with pytest.raises(DatabaseUnavailable):
        await AsyncDatabase.open("postgresql://someone@127.0.0.1:1/nothing")


async def test_an_awaited_pool_on_a_database_that_does_not_exist_says_so(test_server: Any) -> None:
    with pytest.raises(DatabaseUnavailable, match="no_such"):
        await AsyncDatabase.open(test_server.dsn("no_such"))
