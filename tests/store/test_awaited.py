"""Submits that are awaited: what `put` writes and refuses, in any loop, cut off at any moment; nothing stays behind."""

import asyncio
import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psycopg
import pytest
import uvloop
from tests.pgbouncer import pgbouncer, through

from agentos.store import loops, pooler
from agentos.store.calls import tasks, workers
from agentos.store.connect import Database
from agentos.store.direct import Form, Sent, form_of
from agentos.store.errors import DatabaseUnavailable, InvalidValue, TaskExists

SUBMIT = form_of(tasks.submit("", "noop", "ein Titel: ü", "{}", timeout_s=2.5), tasks.SUBMIT_BLANKS)
WAKE: Sent = (workers.wake_one("").sql, [b"heard"])
OTHERS = (
    "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    " AND backend_type = 'client backend'"
)
Main = Callable[[Coroutine[Any, Any, None]], None]


def form() -> Form:
    assert SUBMIT is not None
    return SUBMIT


@pytest.fixture(params=["direct", "pgbouncer"])
async def db(request: pytest.FixtureRequest, database_dsn: str) -> AsyncIterator[Database]:
    """The test's database, or the same by way of a PgBouncer."""
    if request.param == "direct":
        found = Database(database_dsn)
        yield found
        found.close()
        return
    with pgbouncer(database_dsn) as address:
        found = Database(through(address, database_dsn))
        yield found
        found.close()
    pooler.forget()


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def main(request: pytest.FixtureRequest) -> Main:
    """Runs a coroutine in a loop of its own."""
    run: Main = request.param
    return run


def written(conn: psycopg.Connection[Any]) -> set[str]:
    return {row[0] for row in conn.execute("SELECT task_id FROM agentos.task_records")}


def connected(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(f"SELECT count(*) {OTHERS}".encode()).fetchone()
    assert row
    return int(row[0])


async def gone(conn: psycopg.Connection[Any]) -> None:
    """Nobody else is connected any more."""
    for _ in range(500):
        if not connected(conn):
            return
        await asyncio.sleep(0.02)
    pytest.fail("somebody is connected still")


async def test_it_writes_what_the_call_writes(db: Database) -> None:
    await asyncio.gather(*[db.aput(form(), (f"task-{n}", '{"text":"ü 🙂"}')) for n in range(30)])
    db.run(tasks.submit("cursor", "noop", "ein Titel: ü", '{"text":"ü 🙂"}', timeout_s=2.5))
    found = db.run(tasks.list_tasks())
    assert {(task.title, task.kind, task.payload["text"]) for task in found} == {("ein Titel: ü", "noop", "ü 🙂")}
    assert {task.task_id for task in found} == {"cursor", *(f"task-{n}" for n in range(30))}


async def test_the_call_behind_it_is_a_transaction_of_its_own(db: Database, conn: psycopg.Connection[Any]) -> None:
    await db.aput(form(), ("task-1", "{}"), ("SELECT 1 / $1::integer", [b"0"]))
    conn.execute("LISTEN agentos_wake")
    await db.aput(form(), ("task-2", "{}"), WAKE)
    assert [notice.payload for notice in conn.notifies(timeout=5, stop_after=1)] == ["heard"]
    assert written(conn) == {"task-1", "task-2"}


@pytest.mark.parametrize("behind", [None, WAKE])
async def test_more_than_a_socket_takes_at_once_goes_out(db: Database, behind: Sent | None) -> None:
    await db.aput(form(), ("task-1", '{"x":"' + "y" * 4_000_000 + '"}'), behind)
    await db.aput(form(), ("task-2", "{}"), behind)
    assert sorted(len(str(task.payload)) for task in db.run(tasks.list_tasks())) == [2, 4_000_009]


async def test_a_refusal_is_the_same_and_the_connection_goes_on(db: Database) -> None:
    await db.aput(form(), ("task-1", "{}"))
    for behind in (None, WAKE):
        with pytest.raises(TaskExists, match="task-1") as caught:
            await db.aput(form(), ("task-1", "{}"), behind)
        assert caught.value.hint
        with pytest.raises(InvalidValue):
            await db.aput(form(), ("task-2", "{no json"), behind)
    await db.aput(form(), ("task-2", "{}"))


async def test_statements_that_the_server_forgot_are_prepared_again(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    db = Database(database_dsn, max_size=1)
    for n in range(6):
        await db.aput(form(), (f"task-{n}", "{}"), WAKE if n % 2 else None)
        await db.aput(Form("DEALLOCATE ALL", (), ()), ())
    assert len(written(conn)) == 6
    db.close()


async def test_one_that_is_cancelled_leaves_nothing_that_the_next_could_read(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    db = Database(database_dsn, max_size=1)
    await db.aput(form(), ("task-0", "{}"))
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE agentos.task_records")
        waits = [asyncio.create_task(db.aput(form(), (f"cut-{n}", "{}"), WAKE if n else None)) for n in range(3)]
        await asyncio.sleep(0.1)
        for each in waits:
            each.cancel()
        assert {type(each) for each in await asyncio.gather(*waits, return_exceptions=True)} == {asyncio.CancelledError}
    await asyncio.gather(*[db.aput(form(), (f"after-{n}", "{}")) for n in range(3)])
    assert {"task-0", "after-0", "after-1", "after-2"} <= written(conn) <= {
        "task-0", "cut-0", "after-0", "after-1", "after-2"
    }  # fmt: skip
    db.close()


async def test_when_the_database_is_closed_all_that_are_under_way_are_told(database_dsn: str) -> None:
    db = Database(database_dsn, max_size=1)
    await db.aput(form(), ("task-0", "{}"))
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE agentos.task_records")
        waits = [asyncio.create_task(db.aput(form(), (f"cut-{n}", "{}"), WAKE if n else None)) for n in range(3)]
        await asyncio.sleep(0.1)
        db.close()
        async with asyncio.timeout(20):
            told = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(each) for each in told} == {DatabaseUnavailable}


async def test_cancelled_at_any_moment_the_others_go_on(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    """From before there is a connection until after the reply."""
    db = Database(database_dsn, max_size=2)
    for n in range(60):
        cut = asyncio.create_task(db.aput(form(), (f"cut-{n}", "{}"), WAKE if n % 3 else None))
        kept = asyncio.create_task(db.aput(form(), (f"kept-{n}", "{}")))
        await asyncio.sleep(n * 0.0001)
        cut.cancel()
        async with asyncio.timeout(20):
            await kept
    assert {f"kept-{n}" for n in range(60)} <= written(conn)
    assert connected(conn) <= 6  # those that were closed a moment ago are still ending
    db.close()


@pytest.mark.parametrize("behind", [None, WAKE])
async def test_a_connection_that_was_ended_at_work_is_an_outage_and_the_next_call_has_another(
    database_dsn: str, conn: psycopg.Connection[Any], behind: Sent | None
) -> None:
    db = Database(database_dsn, max_size=1)
    await db.aput(form(), ("task-1", "{}"))
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE agentos.task_records")
        waits = asyncio.create_task(db.aput(form(), ("task-2", "{}"), behind))
        await asyncio.sleep(0.1)
        conn.execute(f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'".encode())
        with pytest.raises(DatabaseUnavailable):
            await waits
    await db.aput(form(), ("task-3", "{}"), behind)
    db.close()


async def test_one_that_was_ended_while_it_idled_is_not_lent_again(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    db = Database(database_dsn)
    await asyncio.gather(*[db.aput(form(), (f"task-{n}", "{}")) for n in range(5)])
    conn.execute(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS}".encode())
    await asyncio.sleep(0.1)
    await asyncio.gather(*[db.aput(form(), (f"after-{n}", "{}")) for n in range(5)])
    assert len(written(conn)) == 10
    db.close()


async def test_a_server_that_says_something_of_itself_ends_nothing(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    db = Database(database_dsn, max_size=1)
    await db.aput(form(), ("task-1", "{}"))
    await db.aput(Form("LISTEN said", (), ()), ())
    conn.execute("NOTIFY said")
    await asyncio.sleep(0.1)
    await db.aput(form(), ("task-2", "{}"))
    assert connected(conn) == 1
    db.close()


async def test_what_idles_is_closed(
    database_dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "IDLE_S", 0.2)
    db = Database(database_dsn)
    await asyncio.gather(*[db.aput(form(), (f"task-{n}", "{}")) for n in range(5)])
    await gone(conn)
    await db.aput(form(), ("after", "{}"))
    await gone(conn)
    db.close()


def test_each_loop_has_its_own_connections_which_go_with_it(
    database_dsn: str, conn: psycopg.Connection[Any], main: Main
) -> None:
    db = Database(database_dsn)

    async def submits(name: str) -> None:
        await asyncio.gather(*[db.aput(form(), (f"{name}-{n}", "{}")) for n in range(5)])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(3):
            main(submits(f"loop-{n}"))
            main(gone(conn))
        threads = [threading.Thread(target=main, args=(submits(f"thread-{n}"),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        main(gone(conn))
    assert len(written(conn)) == 35
    db.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_only_closed_leaves_no_connection_once_another_asks(
    database_dsn: str, conn: psycopg.Connection[Any], main: Main, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    db = Database(database_dsn)
    loop = new_loop()
    loop.run_until_complete(db.aput(form(), ("task-1", "{}")))
    loop.close()
    main(db.aput(form(), ("task-2", "{}")))
    main(gone(conn))
    db.close()


def test_a_fork_leaves_its_parents_connections_alone(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    async def forks() -> None:
        db = Database.at(database_dsn)
        await db.aput(form(), ("before", "{}"))
        if (pid := os.fork()) == 0:
            code = 1
            try:
                db.close()
                asyncio._set_running_loop(None)
                asyncio.run(Database.at(database_dsn).aput(form(), ("child", "{}")))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
        await db.aput(form(), ("parent", "{}"))
        db.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
        asyncio.run(forks())
    assert written(conn) == {"before", "child", "parent"}


async def test_a_server_that_is_not_there_is_said(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentos.store.login.CONNECT_TIMEOUT_S", 0.3)
    db = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await db.aput(form(), ("task-1", "{}"))
    db.close()
