"""Both drivers behind one blocking face, so that a test is written once and runs over psycopg and over asyncpg."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, LiteralString, Protocol, TypeVar

import asyncpg
import psycopg

from agentos.store.connect import AsyncDatabase, Database, connect
from agentos.store.pooler import is_pooled, known
from agentos.store.run import Call, arun_call, run_call

T = TypeVar("T")


class Session(Protocol):
    """One connection. Without `begin` every call is a transaction of its own. `pid` of the server's process; behind a
    pooler 0: each transaction may have another.
    """

    pid: int

    def run(self, call: Call[T]) -> T: ...
    def execute(self, text: LiteralString) -> None: ...
    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


class Driver(Protocol):
    """A pool that runs calls, and a maker of sessions."""

    name: str

    def run(self, call: Call[T]) -> T: ...
    def session(self) -> Session: ...
    def close(self) -> None: ...


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-loop", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for its result; from any thread but the loop's."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class _Transactions:
    """BEGIN and its ends, in the words of SQL."""

    def execute(self, text: LiteralString) -> None:
        raise AssertionError("a session executes")

    def begin(self) -> None:
        self.execute("BEGIN")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        self.execute("ROLLBACK")


class PsycopgSession(_Transactions):
    """A session of psycopg."""

    def __init__(self, dsn: str) -> None:
        self._conn: psycopg.Connection[Any] = connect(dsn, application="test-session")
        self.pid = 0 if is_pooled(self._conn) else self._conn.info.backend_pid

    def run(self, call: Call[T]) -> T:
        return run_call(self._conn, call)

    def execute(self, text: LiteralString) -> None:
        self._conn.execute(text)

    def close(self) -> None:
        self._conn.close()


class AsyncpgSession(_Transactions):
    """A session of asyncpg."""

    def __init__(self, dsn: str, thread: LoopThread) -> None:
        self._thread = thread
        pooled = known(dsn)
        self._conn: Any = thread.wait(_connect(dsn, pooled=bool(pooled)))
        self.pid = 0 if pooled else self._conn.get_server_pid()

    def run(self, call: Call[T]) -> T:
        return self._thread.wait(arun_call(self._conn, call))

    def execute(self, text: LiteralString) -> None:
        self._thread.wait(self._conn.execute(text))

    def close(self) -> None:
        self._thread.wait(_terminate(self._conn))


async def _connect(dsn: str, *, pooled: bool) -> Any:
    if pooled:  # as AsyncDatabase does
        return await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, prepare_threshold=None, application_name="test-session"
        )
    return await asyncpg.connect(dsn, server_settings={"application_name": "test-session"})


async def _terminate(conn: Any) -> None:
    await (conn.close() if isinstance(conn, psycopg.AsyncConnection) else _ended(conn))


async def _ended(conn: Any) -> None:
    conn.terminate()


class Psycopg:
    """The blocking handle and its sessions."""

    name = "psycopg"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._database = Database(dsn, max_size=8)
        self._sessions: list[Session] = []

    def run(self, call: Call[T]) -> T:
        return self._database.run(call)

    def session(self) -> Session:
        return _kept(self._sessions, PsycopgSession(self._dsn))

    def close(self) -> None:
        _close_all(self._sessions)
        self._database.close()


class Asyncpg:
    """The awaited handle and its sessions, driven from a blocking test."""

    name = "asyncpg"

    def __init__(self, dsn: str, thread: LoopThread) -> None:
        self._dsn = dsn
        self._thread = thread
        self._database = thread.wait(AsyncDatabase.open(dsn, max_size=8))
        self._sessions: list[Session] = []

    def run(self, call: Call[T]) -> T:
        return self._thread.wait(self._database.run(call))

    def session(self) -> Session:
        return _kept(self._sessions, AsyncpgSession(self._dsn, self._thread))

    def close(self) -> None:
        _close_all(self._sessions)
        self._thread.wait(self._database.close())


def _kept(sessions: list[Session], session: Session) -> Session:
    sessions.append(session)
    return session


def _close_all(sessions: Sequence[Session]) -> None:
    for session in sessions:
        session.close()
