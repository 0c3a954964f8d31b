"""The transaction that a handler has open: what runs in it, what of the running item it takes back when it fails.

Which one is open is told by a context variable, which follows the handler's own tasks and threads: a branch of the
handler that runs beside the block is not in it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import psycopg

from agentos.core.flows.patience import insist
from agentos.core.parked import Parked
from agentos.core.process import monotonic
from agentos.store.calls.transactions import Held, settled_transaction, transaction_status
from agentos.store.connect import Database, OnConnection
from agentos.store.errors import (
    DatabaseUnavailable,
    EffectInTransaction,
    TransactionAborted,
    TransactionOpen,
    TransactionTimeout,
)
from agentos.store.joined import Joined, OnPsycopg, has_ended, lost
from agentos.store.run import AsyncRunner, Call, Flow, SyncRunner

T = TypeVar("T")

ABORTED = (asyncpg.InFailedSQLTransactionError, psycopg.errors.InFailedSqlTransaction)


class Ended(Exception):
    """Inside the block: its connection broke. Not a DatabaseUnavailable, which flows would answer by asking again."""


@dataclass(slots=True)
class OpenTransaction:
    """One `ctx.transaction()`: whose it is, the connection, and what it did that a rollback must undo.

    `owner`: the running item (`ItemScope`). `ordinals`, `calls`: how many checkpoints and which unkeyed calls it
    counted. `steps`: its checkpoints, by which it is found when the reply to its COMMIT is lost.
    """

    owner: Any
    runner: Any
    held: Held
    opened_at: float
    closed: bool = False
    steps: list[UUID] = field(default_factory=list)
    ordinals: int = 0
    calls: Counter[Any] = field(default_factory=Counter)

    async def run(self, call: Call[T]) -> T:
        """Run a call in it. Raises Ended: if its connection broke."""
        try:
            result: T = await self.runner.run(call)
        except DatabaseUnavailable as exc:
            if self.runner.broken:
                raise Ended from exc
            raise
        return result

    @property
    def overdue(self) -> bool:
        """Whether the server has ended it by now, or is about to."""
        return monotonic() - self.opened_at >= self.held.limit_s

    def check_time(self) -> None:
        """Raises TransactionTimeout: if it is overdue."""
        if self.overdue:
            raise self.timeout()

    def timeout(self) -> TransactionTimeout:
        """The error for one that was open too long."""
        return TransactionTimeout(
            f"ctx.transaction() was open for {monotonic() - self.opened_at:.1f} s; it may for {self.held.limit_s:g} s, "
            "a third of the worker's TTL, and was rolled back",
            hint="do what takes long before the block, or raise the worker's --ttl (5 s are the most)",
        )


_current: ContextVar[OpenTransaction | None] = ContextVar("agentos_transaction", default=None)
_recording: ContextVar[bool] = ContextVar("agentos_recording", default=False)


def open_transaction(owner: Any = None) -> OpenTransaction | None:
    """The transaction that the running code is in, of `owner` if one is given."""
    found = _current.get()
    if found is None or found.closed or (owner is not None and found.owner is not owner):
        return None
    return found


@contextmanager
def within(transaction: OpenTransaction) -> Iterator[OpenTransaction]:
    """Make it the open one for the block."""
    token = _current.set(transaction)
    try:
        yield transaction
    finally:
        transaction.closed = True
        _current.reset(token)


@contextmanager
def recording() -> Iterator[None]:
    """What is "executed" in the block only hands over a result that is known already."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def refuse_nested() -> None:
    """Raises TransactionOpen: if the running code is in a transaction."""
    if open_transaction() is not None:
        raise TransactionOpen(
            "ctx.transaction() was called inside ctx.transaction()",
            hint="use the connection you have; for a part that may fail alone, a savepoint: conn.transaction()",
        )


def refuse_effect(what: str = "a tool or model call") -> None:
    """Raises EffectInTransaction: if the running code is in a transaction."""
    if not _recording.get() and open_transaction() is not None:
        raise EffectInTransaction(
            f"{what} would run inside ctx.transaction(): a rollback cannot undo it, and it holds the lease's row",
            hint="call it before the block and write its result inside; what is recorded already may be asked for, and "
            "ctx.record() records a result that is known",
        )


def settled(transaction: OpenTransaction) -> Flow[bool]:
    """The reply to its COMMIT was lost: whether it happened. Raises LeaseLost, DatabaseUnavailable, DatabaseBusy."""
    step = transaction.steps[-1] if transaction.steps else None
    ask = settled_transaction(transaction.owner.lease.fence, step_id=step, xid=transaction.held.xid)
    return (yield from insist(ask))


def explained(exc: BaseException, transaction: OpenTransaction | None, runner: Joined) -> BaseException:
    """What an error that left the block, or its COMMIT, means to the handler; the error itself where it is its own.

    Where it takes the transaction with it, the item counts as if the block had never been.
    """
    if transaction is None:
        return lost(exc) if has_ended(exc, runner) else exc
    taken_back(transaction)
    if isinstance(exc, Parked):
        return EffectInTransaction(
            "a wait was asked for inside ctx.transaction()", hint="end the block first: a wait gives the lease away"
        )
    if isinstance(exc, ABORTED):
        return TransactionAborted(
            "a statement inside ctx.transaction() failed and its error was caught: nothing can be committed",
            hint="let the error leave the block, or put the statement behind a savepoint: conn.transaction()",
        )
    cause = exc.__cause__ if isinstance(exc, Ended) else exc
    if isinstance(exc, Ended) or has_ended(exc, runner):
        return transaction.timeout() if transaction.overdue else lost(cause or exc)
    return transaction.timeout() if isinstance(exc, TimeoutError) and transaction.overdue else exc


def taken_back(transaction: OpenTransaction) -> None:
    """It was rolled back: the item counts as if it had never been."""
    transaction.owner.take_back(transaction.ordinals, transaction.calls)
    transaction.ordinals = 0
    transaction.calls.clear()


async def left_open(owner: Any, db: AsyncRunner) -> None:
    """A transaction of the caller's own that the item joined must have ended before the item asks for something else.

    Raises TransactionOpen: if it is still open. One that he rolled back is taken back here.
    """
    joined: OpenTransaction = owner.joined
    status = await db.run(transaction_status(joined.held.xid))
    if status == "in progress":
        raise TransactionOpen(
            "the transaction that ctx.transaction(conn=...) joined is still open, and holds this item's lease row",
            hint="commit it before the next call of the context",
        )
    owner.joined = None
    if status == "aborted":
        taken_back(joined)


def blocking_runner(task_id: str, db: Database) -> SyncRunner:
    """What a manager's call for this task runs on: the connection of the blocking handler's open transaction, or `db`.

    Raises TransactionOpen: in an async handler's transaction, which a blocking call would wait for, for ever.
    """
    transaction = open_transaction()
    if transaction is None or transaction.owner.task_id != task_id:
        return db
    if not isinstance(transaction.runner, OnPsycopg):
        raise TransactionOpen(
            "a blocking call was made inside an async handler's ctx.transaction(), whose end it would wait for",
            hint="use the context's own calls inside the block: await ctx.checkpoint(...)",
        )
    return OnConnection(transaction.runner.conn)
