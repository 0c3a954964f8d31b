"""Running calls on a connection of somebody else, inside the transaction that it is in."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import asyncpg
import psycopg

from agentos.store.errors import DatabaseUnavailable, InvalidInput
from agentos.store.run import Call, arun_call, run_call

T = TypeVar("T")


class Joined(Protocol):
    """A connection whose transaction calls can join; one call at a time."""

    async def run(self, call: Call[T]) -> T: ...

    @property
    def in_transaction(self) -> bool:
        """Whether its owner has a transaction open on it."""

    @property
    def broken(self) -> bool:
        """Whether the connection is gone."""


class AsyncJoined(Joined, Protocol):
    """One whose transactions are awaited."""

    conn: Any

    def begun(self) -> AbstractAsyncContextManager[Any]:
        """A transaction, or a savepoint in the one that is open."""


@dataclass(slots=True)
class OnAsyncpg:
    """An asyncpg connection, or one that a pool lent."""

    conn: Any
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, call: Call[T]) -> T:
        async with self._turn:
            return await arun_call(self.conn, call)

    def begun(self) -> AbstractAsyncContextManager[Any]:
        transaction: AbstractAsyncContextManager[Any] = self.conn.transaction()
        return transaction

    @property
    def in_transaction(self) -> bool:
        return bool(self.conn.is_in_transaction())

    @property
    def broken(self) -> bool:
        try:
            return bool(self.conn.is_closed())
        except asyncpg.InterfaceError:  # its pool took back one that had ended
            return True


@dataclass(slots=True)
class OnAsyncPsycopg:
    """An asynchronous psycopg connection."""

    conn: psycopg.AsyncConnection[Any]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, call: Call[T]) -> T:
        async with self._turn:
            return await arun_call(self.conn, call)

    def begun(self) -> AbstractAsyncContextManager[Any]:
        return self.conn.transaction()

    @property
    def in_transaction(self) -> bool:
        return self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    @property
    def broken(self) -> bool:
        return self.conn.closed


@dataclass(slots=True)
class OnPsycopg:
    """A psycopg connection of a blocking handler: calls run in a thread while the handler's own waits for them."""

    conn: psycopg.Connection[Any]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, call: Call[T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(run_call, self.conn, call)

    @property
    def in_transaction(self) -> bool:
        return self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    @property
    def broken(self) -> bool:
        return self.conn.closed


def joined(conn: Any) -> AsyncJoined:
    """The connection as a runner of calls. Raises InvalidInput: if it is of no driver that is known."""
    if isinstance(conn, psycopg.AsyncConnection):
        return OnAsyncPsycopg(conn)
    if isinstance(conn, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return OnAsyncpg(conn)
    raise InvalidInput(
        f"conn is of type {type(conn).__name__}, which cannot be joined here",
        hint="pass an asyncpg connection, a psycopg.AsyncConnection, or in a blocking handler a psycopg.Connection",
    )


_GONE = (OSError, asyncpg.InternalClientError)  # the latter: a server that ended an idle connection, now and then
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, psycopg.Error, *_GONE)
"""What the drivers raise: for the caller's statement, or because the connection has gone."""
_ENDED = ("08", "57P", "25P03", "25P04")


def has_ended(exc: BaseException, runner: Joined) -> bool:
    """Whether the connection, and its transaction, went with this error. An OSError alone may be of a caller's own."""
    code = getattr(exc, "sqlstate", None) or ""
    return isinstance(exc, DRIVER_ERRORS) and (
        runner.broken or code.startswith(_ENDED) or isinstance(exc, asyncpg.InternalClientError)
    )


def lost(exc: BaseException) -> DatabaseUnavailable:
    """The error for a transaction that ended because its connection broke."""
    return DatabaseUnavailable(
        f"the connection of the transaction broke: {(str(exc) or type(exc).__name__).splitlines()[0]}",
        hint="nothing of it was kept; the item goes on from its last checkpoint",
    )
