"""Wake-ups: the first after a pause is on its way before the submit returns, the others are collected, none is lost."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from agentos.core.wake import PAUSE_S, Waker
from agentos.store.calls import tasks, workers
from agentos.store.connect import Database
from agentos.store.direct import Form, form_of

LISTENED_S = 20.0


@pytest.fixture
def waker(database_dsn: str) -> Iterator[Waker]:
    """With a database of its own, as `waker_of` makes them."""
    db = Database(database_dsn, max_size=1)
    yield Waker(db, at_once=True)
    db.close()


def heard(conn: "psycopg.Connection[object]", count: int) -> list[str]:
    """The next so many notices."""
    return [notice.payload for notice in conn.notifies(timeout=LISTENED_S, stop_after=count)]


def test_all_that_are_asked_for_come_however_fast_they_are_asked_for(
    waker: Waker, conn: "psycopg.Connection[object]"
) -> None:
    conn.execute("LISTEN agentos_wake")
    names = [f"queue-{n}" for n in range(200)]
    for n, name in enumerate(names):
        waker.wake(name)
        if n % 20 == 0:
            time.sleep(PAUSE_S * 1.5)  # some are the first after a pause, some come during one
    assert sorted(heard(conn, len(names))) == sorted(names)


def test_the_first_after_a_pause_is_sent_by_whoever_asks(
    waker: Waker, conn: "psycopg.Connection[object]", monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("LISTEN agentos_wake")
    waker.wake("connects")
    assert heard(conn, 1) == ["connects"]
    time.sleep(PAUSE_S * 3)
    monkeypatch.setattr(Waker, "_notify", lambda *_: pytest.fail("left to the thread"))
    waker.wake("at once")
    assert heard(conn, 1) == ["at once"]


def test_a_wake_up_on_a_connection_that_broke_is_not_the_end_of_them(
    waker: Waker, conn: "psycopg.Connection[object]"
) -> None:
    conn.execute("LISTEN agentos_wake")
    waker.wake("before")
    assert heard(conn, 1) == ["before"]
    conn.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                 " AND datname = current_database() AND backend_type = 'client backend'")  # fmt: skip
    time.sleep(PAUSE_S * 3)
    waker.wake("lost, or not")
    time.sleep(PAUSE_S * 3)
    for _ in range(3):  # the pool finds out, connects anew
        waker.wake("after")
        time.sleep(PAUSE_S * 3)
    assert "after" in heard(conn, 1) + heard(conn, 1)


def test_a_queue_of_any_name_is_told_of(database_dsn: str, conn: "psycopg.Connection[object]") -> None:
    db = Database(database_dsn, max_size=1)
    conn.execute("LISTEN agentos_wake")
    assert db.send(workers.wake_one("nobody")) is None  # it never connects
    db.run(workers.wake([]))
    for name in ('a "quoted", {braced} \\ one', "ünïcode", "it's"):
        sent = db.send(workers.wake_one(name))
        assert sent is not None
        sent.wait()
        assert heard(conn, 1) == [name]
    db.close()


def test_a_submit_that_waits_for_a_lock_keeps_no_other_wake_up(
    waker: Waker, database_dsn: str, conn: psycopg.Connection[object]
) -> None:
    conn.execute("LISTEN agentos_wake")
    db = Database(database_dsn)
    waker.put(db, submit("queue"), ("task-0", "{}"), "queue")
    assert heard(conn, 1) == ["queue"]
    with psycopg.connect(database_dsn) as other, ThreadPoolExecutor(1) as thread:
        db.put(submit("queue"), ("task-1", "{}"))
        other.execute("LOCK TABLE agentos.task_records")
        time.sleep(PAUSE_S * 3)
        waits = thread.submit(waker.put, db, submit("queue"), ("task-2", "{}"), "queue")
        time.sleep(PAUSE_S)
        waker.wake("another")
        assert heard(conn, 1) == ["another"]
        assert not waits.done()
        other.rollback()
        waits.result()
    assert heard(conn, 1) == ["queue"]
    db.close()


def test_of_submits_in_a_row_some_carry_their_wake_up_and_none_goes_without(
    waker: Waker, database_dsn: str, conn: psycopg.Connection[object]
) -> None:
    db = Database(database_dsn)
    conn.execute("LISTEN agentos_wake")
    for n in range(60):
        waker.put(db, submit(f"queue-{n}"), (f"task-{n}", "{}"), f"queue-{n}")
        if n % 20 == 0:
            time.sleep(PAUSE_S * 1.5)
    assert sorted(heard(conn, 60)) == sorted(f"queue-{n}" for n in range(60))
    db.close()


async def test_awaited_submits_carry_their_wake_ups_and_none_goes_without(
    waker: Waker, database_dsn: str, conn: psycopg.Connection[object]
) -> None:
    db = Database(database_dsn)
    conn.execute("LISTEN agentos_wake")
    for n in range(60):
        await waker.aput(db, submit(f"queue-{n}"), (f"task-{n}", "{}"), f"queue-{n}")
        if n % 20 == 0:
            await asyncio.sleep(PAUSE_S * 1.5)
    assert sorted(heard(conn, 60)) == sorted(f"queue-{n}" for n in range(60))
    db.close()


async def test_the_first_after_a_pause_goes_along_with_an_awaited_submit(
    waker: Waker, database_dsn: str, conn: psycopg.Connection[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(database_dsn)
    conn.execute("LISTEN agentos_wake")
    monkeypatch.setattr(Waker, "_notify", lambda *_: pytest.fail("left to the thread"))
    monkeypatch.setattr(Waker, "_sent", lambda *_: pytest.fail("sent behind it"))
    for name in ("one", "two"):
        await waker.aput(db, submit(name), (f"task-{name}", "{}"), name)
        assert heard(conn, 1) == [name]
        await asyncio.sleep(PAUSE_S * 3)
    db.close()


async def test_an_awaited_submit_that_is_cancelled_lets_the_next_wake_up_go(
    waker: Waker, database_dsn: str, conn: psycopg.Connection[object]
) -> None:
    db = Database(database_dsn)
    conn.execute("LISTEN agentos_wake")
    await waker.aput(db, submit("queue"), ("task-0", "{}"), "queue")
    assert heard(conn, 1) == ["queue"]
    await asyncio.sleep(PAUSE_S * 3)
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE agentos.task_records")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(PAUSE_S * 2):
                await waker.aput(db, submit("queue"), ("task-1", "{}"), "queue")
    await waker.aput(db, submit("another"), ("task-2", "{}"), "another")
    assert "another" in heard(conn, 2)
    db.close()


def submit(name: str) -> Form:
    """A task in a queue, its id and payload blank."""
    form = form_of(tasks.submit("", "noop", "a title", "{}", queue=name), tasks.SUBMIT_BLANKS)
    assert form is not None
    return form
