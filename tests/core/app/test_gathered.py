"""Awaited submits that come together share commits, and each is told its own end."""

import asyncio
import gc
import threading
import time
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
import uvloop
from tests.store import engine

from agentos.core.app import App, gathered, preparation
from agentos.core.wake import Waker, waker_of
from agentos.store.calls.flow import set_depth
from agentos.store.connect import Database
from agentos.store.direct import Form
from agentos.store.errors import DatabaseUnavailable, QueueFull

EIGHT = range(8)
OTHERS = (
    "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    " AND backend_type = 'client backend'"
)


@pytest.fixture
def app(database_dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(preparation, "may_be_traced", lambda: False)  # other tests of the process may have traced
    app = App(dsn=database_dsn)
    app.dead()  # it knows its database from now on
    return app


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that were called, in order."""
    functions: list[str] = []
    really = Waker.aput

    async def aput(waker: Waker, db: Database, form: Form, texts: Sequence[str], name: str) -> None:
        functions.append(form.sql.split("(")[0].removeprefix("SELECT agentos."))
        await really(waker, db, form, texts, name)

    monkeypatch.setattr(Waker, "aput", aput)
    return functions


def written(conn: psycopg.Connection[Any]) -> set[str]:
    return {row[0] for row in conn.execute("SELECT task_id FROM agentos.task_records")}


def whole(conn: psycopg.Connection[Any]) -> bool:
    """Whether each task has all its rows."""
    return len({engine.count(conn, table) for table in ("task_records", "work_items", "lease_ready")}) == 1


async def test_those_that_come_while_a_commit_is_under_way_share_the_next(
    app: App, conn: psycopg.Connection[Any], sent: list[str]
) -> None:
    payloads = [{"n": n, "text": 'ü 🙂 "quoted", {a} \\ [b]'} for n in range(50)]
    handles = await asyncio.gather(*[app.asubmit("noop", payload, title='ein ,"Titel"') for payload in payloads])
    assert sent == ["submit", "submit_many"]
    rows = conn.execute("SELECT task_id, title, payload FROM agentos.tasks").fetchall()
    assert {(row[0], row[1], row[2]["n"], row[2]["text"]) for row in rows} == {
        (handle.task_id, 'ein ,"Titel"', payload["n"], payload["text"])
        for handle, payload in zip(handles, payloads, strict=True)
    }
    assert whole(conn)


async def test_the_first_of_a_process_may_come_all_at_once(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(db: Database) -> Waker:
        time.sleep(0.05)
        return waker_of(db)

    monkeypatch.setattr("agentos.core.app.registry.waker_of", slowly)
    app = App(dsn=database_dsn)
    made = [asyncio.create_task(app.asubmit("noop", {"n": n})) for n in range(3)]
    async with asyncio.timeout(20):
        while app._found is None:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)
    made += [asyncio.create_task(app.asubmit("noop", {"n": n})) for n in range(3)]
    assert len({handle.task_id for handle in await asyncio.gather(*made)}) == 6


async def test_one_client_and_ids_of_the_callers_go_alone(
    app: App, conn: psycopg.Connection[Any], sent: list[str]
) -> None:
    for _ in range(3):
        await app.asubmit("noop", {})
    await asyncio.gather(*[app.asubmit("noop", {}, task_id=f"mine-{n}") for n in EIGHT])
    assert set(sent) == {"submit"}
    assert len(written(conn)) == 11


async def test_the_workers_are_told(app: App, conn: psycopg.Connection[Any]) -> None:
    conn.execute("LISTEN agentos_wake")
    await asyncio.gather(*[app.asubmit("noop", {}, queue=f"queue-{n % 2}") for n in EIGHT])
    assert {notice.payload for notice in conn.notifies(timeout=5, stop_after=2)} == {"queue-0", "queue-1"}


async def test_of_those_that_do_not_fit_together_each_finds_out_for_itself(
    app: App, db: Database, conn: psycopg.Connection[Any]
) -> None:
    db.run(set_depth("narrow", 5))
    ends = await asyncio.gather(
        *[app.asubmit("noop", {}, queue="narrow") for _ in EIGHT], return_exceptions=True
    )  # fmt: skip
    assert sorted(type(end).__name__ for end in ends) == ["AsyncSubmittedTask"] * 5 + ["QueueFull"] * 3
    assert [end.hint for end in ends if isinstance(end, QueueFull)]
    assert len(written(conn)) == 5
    assert whole(conn)


async def test_an_outage_is_told_to_each_and_the_next_are_written(
    app: App, database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    await app.asubmit("noop", {})
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE agentos.task_records")
        waits = [asyncio.create_task(app.asubmit("noop", {})) for _ in EIGHT]
        await asyncio.sleep(0.1)
        conn.execute(f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'".encode())
        async with asyncio.timeout(20):
            first, *_ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert {type(each.exception()) for each in first} == {DatabaseUnavailable}
        await asyncio.sleep(0.1)
        conn.execute(f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'".encode())
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ends} == {DatabaseUnavailable}
        assert len({id(end) for end in ends}) == len(ends)
    await asyncio.gather(*[app.asubmit("noop", {}) for _ in EIGHT])
    assert len(written(conn)) == 9


async def test_one_that_is_cancelled_takes_none_along_and_is_not_made_if_it_was_not_sent(
    app: App, database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(database_dsn) as other:
        await app.asubmit("noop", {})
        other.execute("LOCK TABLE agentos.task_records")
        waits = [asyncio.create_task(app.asubmit("noop", {"n": n})) for n in EIGHT]
        await asyncio.sleep(0.1)
        waits[3].cancel()
        await asyncio.sleep(0)
    ends = await asyncio.gather(*waits, return_exceptions=True)
    assert [n for n, end in enumerate(ends) if isinstance(end, asyncio.CancelledError)] == [3]
    assert len(written(conn)) == 8
    waits = [asyncio.create_task(app.asubmit("noop", {"n": n})) for n in EIGHT]
    await asyncio.sleep(0.01)
    for each in waits[:4]:
        each.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await app.asubmit("noop", {})
    assert len(written(conn)) >= 13
    assert whole(conn)


async def test_all_tasks_of_the_loop_cancelled_nobody_waits_for_ever(app: App, database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as other:
        await app.asubmit("noop", {})
        other.execute("LOCK TABLE agentos.task_records")
        before = asyncio.all_tasks()
        waits = [asyncio.create_task(app.asubmit("noop", {})) for _ in EIGHT]
        await asyncio.sleep(0.1)
        for each in asyncio.all_tasks() - before - set(waits[1:]):  # the first, and whatever is at it for them
            each.cancel()
        other.rollback()
        async with asyncio.timeout(10):
            await asyncio.gather(*waits, return_exceptions=True)
    async with asyncio.timeout(10):
        await app.asubmit("noop", {})


async def test_any_number_of_shapes(app: App, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "MOST_SHAPES", 3)
    await asyncio.gather(*[app.asubmit("noop", {}, tenant=f"tenant-{n % 10}") for n in range(100)])
    for n in range(10):
        await app.asubmit("noop", {}, tenant=f"other-{n}")
    assert len(written(conn)) == 110
    assert len(next(iter(app._gathered._loops.values()))) <= 4


def test_loops_in_threads_share_nothing(app: App, conn: psycopg.Connection[Any]) -> None:
    async def submits() -> None:
        await asyncio.gather(*[app.asubmit("noop", {"n": n}) for n in range(50)])

    threads = [threading.Thread(target=run, args=(submits(),)) for run in (asyncio.run, uvloop.run) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written(conn)) == 200
    assert whole(conn)
    gc.collect()
    assert not app._gathered._loops
