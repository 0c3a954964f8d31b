"""The pool of asyncpg connections: who gets which, and what becomes of one that broke or was cut off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from agentos.store.connect import AsyncDatabase
from agentos.store.errors import DatabaseUnavailable
from agentos.store.pool import Pool
from agentos.store.run import Call
from agentos.store.transport import for_asyncpg

SLOW: Call[Any] = Call("SELECT pg_sleep(30)", (), lambda rows: rows)
PID: Call[int] = Call("SELECT pg_backend_pid() AS pid", (), lambda rows: int(rows[0]["pid"]))


@pytest.fixture
async def pool(empty_database: str) -> AsyncIterator[Pool[Any]]:
    """Of two."""
    made = Pool(lambda: asyncpg.connect(**for_asyncpg(empty_database)), 2)
    yield made
    made.terminate()


async def test_the_connection_that_came_back_last_goes_out_first(pool: Pool[Any]) -> None:
    first, second = await pool.take(), await pool.take()
    pool.give(first)
    pool.give(second)
    assert await pool.take() is second


async def test_there_are_never_more_than_so_many_and_who_waits_gets_the_next(pool: Pool[Any]) -> None:
    first, _ = await pool.take(), await pool.take()
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    pool.give(first)
    assert await waiting is first


async def test_one_that_broke_makes_room_for_a_new_one_also_for_who_waits(pool: Pool[Any]) -> None:
    first, second = await pool.take(), await pool.take()
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    first.terminate()
    pool.give(first)
    third = await waiting
    assert third not in (first, second)
    second.terminate()
    pool.give(third)
    pool.give(second)
    assert await pool.take() is third
    assert not (await pool.take()).is_closed()


async def test_who_stops_waiting_takes_nothing_along(pool: Pool[Any]) -> None:
    first, second = await pool.take(), await pool.take()
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    pool.give(first)
    waiting.cancel()  # in the same turn of the loop in which it was given one
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.wait_for(pool.take(), 1) is first
    pool.give(second)


async def test_a_connection_that_cannot_be_made_keeps_no_place(empty_database: str) -> None:
    tries = 0

    async def connect() -> "asyncpg.Connection[Any]":
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("refused")
        conn: asyncpg.Connection[Any] = await asyncpg.connect(**for_asyncpg(empty_database))
        return conn

    pool = Pool(connect, 1)
    with pytest.raises(OSError, match="refused"):
        await pool.take()
    assert not (await asyncio.wait_for(pool.take(), 60)).is_closed()
    pool.terminate()


async def test_what_was_cut_off_is_not_used_again(empty_database: str) -> None:
    db = await AsyncDatabase.open(empty_database, max_size=1)
    before = await db.run(PID)
    running = asyncio.create_task(db.run(SLOW))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.wait_for(db.run(PID), 60) != before
    await db.close()


async def test_one_that_the_server_ended_is_replaced_at_the_next_call(empty_database: str) -> None:
    db = await AsyncDatabase.open(empty_database, max_size=1)
    killer = await asyncpg.connect(**for_asyncpg(empty_database))
    pid = await db.run(PID)
    await killer.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    try:
        after = await db.run(PID)
    except DatabaseUnavailable:  # it had not noticed yet
        after = await db.run(PID)
    assert after != pid
    await killer.close()
    await db.close()


async def test_one_that_was_being_made_while_the_pool_closed_is_closed_too(empty_database: str) -> None:
    connecting, closed = asyncio.Event(), asyncio.Event()

    async def connect() -> "asyncpg.Connection[Any]":
        conn: asyncpg.Connection[Any] = await asyncpg.connect(**for_asyncpg(empty_database))
        connecting.set()
        await closed.wait()
        return conn

    pool = Pool(connect, 1)
    taking = asyncio.create_task(pool.take())
    await connecting.wait()
    pool.terminate()
    closed.set()
    conn = await taking
    try:
        assert conn.is_closed()
    finally:
        conn.terminate()
