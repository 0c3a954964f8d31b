"""From a setting to a connection: which database, is it fit, and the two kinds of handles that run calls.

The order: an explicit DSN, `AGENTOS_DSN`, else the embedded server of this user. Only the embedded database migrates
itself; a DSN is checked and refused when its schema is missing, half migrated or newer than this code.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import psycopg

from agentos.store import login, pooler, transport
from agentos.store.direct import Form, Sent, Session, put, put_two
from agentos.store.errors import DatabaseUnavailable
from agentos.store.loops import LoopPools
from agentos.store.migrate import check_schema, migrate
from agentos.store.pool import Pool
from agentos.store.run import Call, arun_call, raise_mapped, run_call
from agentos.store.sent import Reply, send
from agentos.store.session_pool import Reset, SessionPool
from agentos.store.settings import Settings, load_settings
from agentos.store.writer import Writer

if TYPE_CHECKING:
    import psycopg_pool

T = TypeVar("T")

LENT = 8
"""Connections that handlers may have for their own transactions, per process."""


@dataclass(frozen=True, slots=True)
class Target:
    """A database that can be connected to, and whether it is the embedded one."""

    dsn: str
    embedded: bool


def locate(settings: Settings | None = None) -> Target:
    """The database these settings name; starts the embedded server if they name none.

    Raises EmbeddedUnsupported: if there is no DSN and no embedded server for this platform.
    """
    settings = settings or load_settings()
    if settings.dsn:
        return Target(settings.dsn, embedded=False)
    from agentos.store.embedded import EmbeddedServer  # noqa: PLC0415  start-up: who names a DSN embeds nothing

    return Target(EmbeddedServer(settings.data_dir).ensure_running(), embedded=True)


def connect(dsn: str, *, application: str | None = None) -> psycopg.Connection[Any]:
    """One psycopg connection in autocommit: outside autocommit a mere read pins the vacuum horizon until somebody
    commits.

    Raises DatabaseUnavailable: if the server cannot be reached or refuses the login. ConfigInvalid: if the DSN cannot
    be read.
    """
    try:
        conn: psycopg.Connection[Any] = psycopg.connect(dsn, **login.for_psycopg(dsn, application))
        pooler.adapt(conn)
    except psycopg.OperationalError as exc:
        if transport.refusal(exc) is not None:
            raise_mapped(exc)
        raise DatabaseUnavailable(
            f"cannot connect to {login.where(dsn)}: {login.reason(exc)}", hint=login.fix(exc)
        ) from exc
    return conn


_ready: set[str] = set()
_ready_lock = threading.Lock()


def open_target(settings: Settings | None = None, *, may_migrate: bool = False) -> Target:
    """Locate the database and make sure that this code can run on it; asked once per process and database.

    Raises SchemaMissing, SchemaIncomplete, SchemaTooNew, DatabaseTooOld, DatabaseUnavailable.
    """
    target = locate(settings)
    with _ready_lock:
        if target.dsn not in _ready:
            with connect(target.dsn) as conn:
                if target.embedded or may_migrate:
                    migrate(conn)
                check_schema(conn)
            _ready.add(target.dsn)
    return target


def get_db(dsn: str | None = None) -> psycopg.Connection[Any]:
    """A connection of your own to the default database (or `dsn`), in autocommit, its schema checked. Close it.

    Raises DatabaseUnavailable, SchemaMissing and their neighbours: if the database cannot be used.
    """
    return connect(open_target(load_settings(dsn=dsn)).dsn)


class Database:
    """Runs calls, blocking, on a small shared pool of psycopg connections."""

    _shared: "dict[tuple[int, str], Database]" = {}  # noqa: RUF012  one pool per process and DSN, on purpose
    _lock = threading.Lock()

    def __init__(self, dsn: str, *, max_size: int = 10, reset: Reset | None = None) -> None:
        self.dsn = dsn
        self._pid = os.getpid()
        self._login = login.for_psycopg(dsn)
        self._pool = SessionPool(self._connected, max_size, timeout_s=login.CONNECT_TIMEOUT_S, reset=reset)
        self._loops = LoopPools(self._patiently, max_size)
        self._beside: Database | None = None
        self._lending: Database | None = None

    @classmethod
    def default(cls, settings: Settings | None = None) -> "Database":
        """The database of this process: what every constructor without arguments uses."""
        return cls.at(open_target(settings).dsn)

    @classmethod
    def at(cls, dsn: str) -> "Database":
        """The one that this process has on a database, its schema not checked."""
        with cls._lock:
            key = (os.getpid(), dsn)  # a fork must not share its parent's sockets
            if key not in cls._shared or not cls._shared[key].usable:
                cls._shared[key] = cls(dsn)
            return cls._shared[key]

    @property
    def usable(self) -> bool:
        """Whether it was made by this process (a fork must not share its parent's sockets) and is not closed."""
        return self._pid == os.getpid() and not self._pool.closed

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A pooled connection in autocommit; given back at the end of the block."""
        conn = self._pool.take()
        try:
            yield conn
            if not conn.closed:
                conn.commit()
        finally:
            self._pool.give(conn)

    def run(self, call: Call[T]) -> T:
        """Run one call in a transaction of its own."""
        conn = self._pool.take()  # without the frame that `connection` has for code of others: 12 us of 50
        try:
            return run_call(conn, call)
        finally:
            self._pool.give(conn)

    def put(self, form: Form, texts: Sequence[str], then: Sent | None = None) -> None:
        """Run a call whose reply says nothing in a transaction of its own, its blanks filled with these texts; `then`
        behind it, in the same message and another transaction.
        """
        filled = form.filled(texts)
        conn = self._pool.take()
        try:
            if then is None:
                put(conn, form.sql, filled)
            else:
                put_two(conn, (form.before_another(pooled=conn.pooled), filled), then)
        finally:
            self._pool.give(conn)

    async def aput(self, form: Form, texts: Sequence[str], then: Sent | None = None) -> None:
        """`put`, awaited, in any loop."""
        filled = form.filled(texts)
        pool = await self._loops.pool()
        conn = await pool.take()
        try:
            sql = form.sql if then is None else form.before_another(pooled=conn.pooled)
            await conn.put((sql, filled), then)
        finally:
            pool.give(conn)

    def send(self, call: Call[Any]) -> Reply | None:
        """Send a call whose arguments are texts, and do not wait for it; its reply has to be read some time. None: no
        connection is open and free.
        """
        if (conn := self._pool.free()) is None:
            return None
        return send(conn, call, lambda: self._pool.give(conn))

    def _patiently(self) -> Session:
        return self._pool.insist(time.monotonic() + login.CONNECT_TIMEOUT_S)

    def _connected(self) -> Session:
        conn = Session.connect(self.dsn, **self._login)
        pooler.adapt(conn)
        return conn

    def beside(self) -> "Database":
        """One connection more, closed with this pool: for what happens beside the calls, such as waking workers.

        A pool hands its connections out in turn. One that has become two by a call at the same time keeps two of the
        server's processes at it, with cold caches, which costs a program that submits a tenth of its rate.
        """
        with self._lock:
            if self._beside is None:
                self._beside = Database(self.dsn, max_size=1)
            return self._beside

    def lending(self) -> "Database":
        """Connections for statements of others: what they set is reset when they come back."""
        with self._lock:
            if self._lending is None:
                self._lending = Database(self.dsn, max_size=LENT, reset=_as_new)
            return self._lending

    def close(self) -> None:
        """Close the pool."""
        for other in filter(None, (self._beside, self._lending)):
            other.close()
        self._loops.terminate()
        self._pool.close()


def _unlock_after_fork() -> None:
    """Another thread of the parent may have held these while it forked; in the child nobody would let them go."""
    global _ready_lock  # noqa: PLW0603  it is replaced, not changed: the old one may be locked for ever
    _ready_lock = threading.Lock()
    Database._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)


def _as_new(conn: psycopg.Connection[Any]) -> None:
    conn.execute("DISCARD ALL")


@dataclass(frozen=True, slots=True)
class OnConnection:
    """Runs calls on a connection that somebody else owns, in whatever transaction it is in."""

    conn: psycopg.Connection[Any]

    def run(self, call: Call[T]) -> T:
        """Run one call; never commits."""
        return run_call(self.conn, call)


async def _on_asyncpg(pool: "Pool[asyncpg.Connection[Any]]", call: Call[T]) -> T:
    conn, answered = await pool.take(), False
    try:
        reply = await arun_call(conn, call)
        answered = True
        return reply
    except (DatabaseUnavailable, OSError):
        raise
    except Exception:  # any other error is an answer; cut off in the middle is none
        answered = True
        raise
    finally:
        pool.give(conn, usable=answered)


class AsyncDatabase:
    """Runs calls, awaited, on a small pool of connections: asyncpg's, or psycopg's behind a transaction pooler."""

    def __init__(self, pool: "Pool[asyncpg.Connection[Any]] | psycopg_pool.AsyncConnectionPool[Any]", dsn: str) -> None:
        self.pool = pool
        self.dsn = dsn
        self._lending: asyncpg.Pool[Any] | None = None
        self._writer = Writer(self._alone)

    @property
    def pooled(self) -> bool:
        """Whether there is a transaction pooler between here and the server: no LISTEN, nothing prepared."""
        return not isinstance(self.pool, Pool)

    @classmethod
    async def open(cls, dsn: str, *, max_size: int = 2) -> "AsyncDatabase":
        """Open a pool. Raises DatabaseUnavailable: if the server cannot be reached."""
        if await asyncio.to_thread(_is_pooled, dsn):
            return cls(await _pooled(dsn, max_size), dsn)
        pool = Pool(lambda: asyncpg.connect(**login.for_asyncpg(dsn)), max_size)
        try:
            pool.give(await pool.take())
        except CONNECTING as exc:
            raise_mapped(exc)
        return cls(pool, dsn)

    def run(self, call: Call[T]) -> Coroutine[Any, Any, T]:
        """Run one call in a transaction of its own; durable writes of several items at once may share theirs."""
        return self._alone(call) if call.together is None else self._writer.run(call)

    async def _alone(self, call: Call[T]) -> T:
        try:
            if isinstance(self.pool, Pool):
                return await _on_asyncpg(self.pool, call)
            async with self.pool.connection() as conn:
                return await arun_call(conn, call)
        except (*CONNECTING, psycopg.Error) as exc:
            raise_mapped(exc)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Any]:
        """A connection for statements of others, of a pool beside the calls' own: it may be kept for seconds, and what
        is set on it is reset when it comes back. Opened when it is first asked for, closed when it idled for a minute.
        """
        if self._lending is None:
            self._lending = self._lender()
        lending = self._lending
        try:
            _ = await lending
            conn = await lending.acquire()
        except CONNECTING as exc:
            raise_mapped(exc)
        try:
            yield conn
        finally:
            with suppress(
                OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
            ):  # dropped
                await lending.release(conn)

    def _lender(self) -> "asyncpg.Pool[Any]":
        """The pool; made without `await` it connects nowhere. Behind a pooler nothing is prepared under a name, and
        inside a transaction the session stays the same."""
        pool: asyncpg.Pool[Any] = asyncpg.create_pool(
            min_size=0, max_size=LENT, max_inactive_connection_lifetime=60,
            statement_cache_size=0 if self.pooled else 100, **login.for_asyncpg(self.dsn),
        )  # fmt: skip
        return pool

    async def close(self) -> None:
        """Close the pool at once; what runs is ended."""
        if self._lending is not None:
            self._lending.terminate()
        if isinstance(self.pool, Pool):
            self.pool.terminate()
        else:
            await self.pool.close(timeout=1)


CONNECTING = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What asyncpg raises when it cannot connect, or loses a connection."""


def _is_pooled(dsn: str) -> bool:
    found = pooler.known(dsn)
    if found is None:
        with connect(dsn) as conn:
            return pooler.is_pooled(conn)
    return found


async def _pooled(dsn: str, max_size: int) -> "psycopg_pool.AsyncConnectionPool[Any]":
    import psycopg_pool  # noqa: PLC0415  start-up: only who is behind a pooler needs it

    pool: psycopg_pool.AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
        dsn, min_size=1, max_size=max_size, open=False, timeout=login.CONNECT_TIMEOUT_S, max_idle=3600,
        kwargs={**login.for_psycopg(dsn), "prepare_threshold": None},
    )  # fmt: skip
    try:
        await pool.open(wait=True, timeout=login.CONNECT_TIMEOUT_S)
    except psycopg.Error as exc:
        await pool.close(timeout=1)
        raise_mapped(exc)
    return pool


@asynccontextmanager
async def open_async(settings: Settings | None = None, *, max_size: int = 2) -> AsyncIterator[AsyncDatabase]:
    """The default database, for async code: `async with open_async() as db`."""
    db = await AsyncDatabase.open(open_target(settings).dsn, max_size=max_size)
    try:
        yield db
    finally:
        await db.close()
