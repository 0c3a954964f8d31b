"""The pool of psycopg connections: who gets which, and what becomes of one that broke, idled, or came back in use."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from agentos.store import session_pool
from agentos.store.connect import _as_new
from agentos.store.direct import Session
from agentos.store.errors import DatabaseUnavailable
from agentos.store.session_pool import SessionPool


@pytest.fixture
def pool(empty_database: str) -> Iterator[SessionPool]:
    """Of two."""
    made = SessionPool(lambda: Session.connect(empty_database, autocommit=True), 2, timeout_s=60)
    yield made
    made.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_connection_that_came_back_last_goes_out_first(pool: SessionPool) -> None:
    first, second = pool.take(), pool.take()
    pool.give(first)
    pool.give(second)
    assert pool.take() is second


def test_one_that_comes_back_while_the_pool_closes_is_closed(pool: SessionPool) -> None:
    class ClosedMeanwhile(list[tuple[Session, float]]):
        def append(self, each: tuple[Session, float]) -> None:
            pool.close()
            super().append(each)

    conn = pool.take()
    pool._free = ClosedMeanwhile()
    pool.give(conn)
    assert conn.closed


def test_there_are_never_more_than_so_many_and_who_waits_gets_the_next(pool: SessionPool) -> None:
    first, _ = pool.take(), pool.take()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.take)
        time.sleep(0.1)
        assert not waiting.done()
        pool.give(first)
        assert waiting.result(60) is first


def test_who_gets_none_in_time_is_told(empty_database: str) -> None:
    pool = SessionPool(lambda: Session.connect(empty_database), 1, timeout_s=0.2)
    pool.take()
    with pytest.raises(DatabaseUnavailable, match="none of 1 connections"):
        pool.take()
    pool.close()


def test_one_that_broke_makes_room_for_a_new_one_also_for_who_waits(pool: SessionPool) -> None:
    first, second = pool.take(), pool.take()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.take)
        time.sleep(0.1)
        first.close()
        pool.give(first)
        third = waiting.result(60)
    assert third not in (first, second)
    pool.give(third)
    third.close()  # while it is free
    assert pool.take() not in (first, second, third)


def test_what_is_open_on_it_is_rolled_back_and_what_it_is_at_is_ended(pool: SessionPool, empty_database: str) -> None:
    conn = pool.take()
    for statement in ("CREATE TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)"):
        conn.execute(statement.encode())
    pool.give(conn)
    assert pool.take() is conn
    assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
    conn.pgconn.send_query(b"SELECT pg_sleep(30)")
    pool.give(conn)
    assert conn.closed
    assert pool.take() is not conn


def test_it_is_reset_when_it_comes_back(empty_database: str) -> None:
    pool = SessionPool(
        lambda: Session.connect(empty_database, autocommit=True), 1, timeout_s=60,
        reset=_as_new,
    )  # fmt: skip
    conn = pool.take()
    conn.execute("SET application_name = 'mine'")
    pool.give(conn)
    assert pool.take().execute("SHOW application_name").fetchone() != ("mine",)
    pool.close()


def test_what_idles_is_closed_and_its_thread_ends(pool: SessionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pool, "IDLE_S", 0.2)
    first, second = pool.take(), pool.take()
    pool.give(first)
    until(lambda: first.closed)
    assert not second.closed
    pool.give(second)
    until(lambda: second.closed)
    until(lambda: pool._reaper is None)
    assert not pool.take().closed


def test_one_that_is_old_is_closed_when_it_comes_back(pool: SessionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = pool.take()
    monkeypatch.setattr(session_pool, "LIFETIME_S", 0.0)
    pool.give(conn)
    assert conn.closed


def test_a_server_that_comes_back_in_time_is_waited_for(empty_database: str) -> None:
    failures = iter([True, True, False])

    def connect() -> Session:
        if next(failures):
            raise psycopg.OperationalError("the server starts up")
        return Session.connect(empty_database)

    pool = SessionPool(connect, 1, timeout_s=60)
    assert not pool.take().closed
    pool.close()
    gone = SessionPool(lambda: Session.connect("host=127.0.0.1 port=1 user=x"), 1, timeout_s=0.3)
    for _ in range(2):  # its place is free again
        with pytest.raises(DatabaseUnavailable, match="connection failed"):
            gone.take()


def test_after_its_end_it_lends_none_and_keeps_none(pool: SessionPool) -> None:
    free, lent = pool.take(), pool.take()
    pool.give(free)
    pool.close()
    assert free.closed
    pool.give(lent)
    assert lent.closed
    with pytest.raises(DatabaseUnavailable, match="closed"):
        pool.take()


def test_many_threads_share_few_connections(pool: SessionPool) -> None:
    seen: set[int] = set()

    def use(_: int) -> None:
        conn = pool.take()
        assert id(conn) not in seen
        seen.add(id(conn))
        conn.execute("SELECT 1")
        seen.discard(id(conn))
        pool.give(conn)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(use, range(500)))
    assert len(pool._free) <= 2
