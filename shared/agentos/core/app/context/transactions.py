"""`ctx.transaction()`: the handler's own writes and what its context records, in one commit under the fence."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any

import psycopg

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.flows.tools import ToolPolicy
from agentos.core.process import monotonic
from agentos.core.transaction import (
    OpenTransaction,
    explained,
    left_open,
    recording,
    refuse_nested,
    settled,
    taken_back,
    within,
)
from agentos.store.calls.transactions import hold_fence, is_usable
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.errors import ConfigInvalid, InvalidInput
from agentos.store.joined import DRIVER_ERRORS, AsyncJoined, OnAsyncpg, OnPsycopg, has_ended, joined
from agentos.store.run import adrive, raise_mapped, run_call

ROLLBACK_S = 5.0
"""How long a rollback may take before its connection is left to the pool, which drops it."""


class Transactions(Bound):
    """`ctx.transaction`, `ctx.record`, `ctx.record_llm`."""

    @asynccontextmanager
    async def transaction(self, conn: Any = None) -> AsyncIterator[Any]:
        """`async with ctx.transaction() as conn`: an asyncpg connection in a transaction that holds this item.

        What is written through `conn`, and what `ctx.checkpoint`, `ctx.record` and replays write inside the block,
        commits together at its end or, when an exception leaves it, not at all; the context then counts as if the
        block had not been. It may stay open for a third of the worker's TTL, at most 5 s. No tool, model or wait runs
        inside it.

        `conn`: a connection of the caller's to the same database (asyncpg, or psycopg.AsyncConnection). If it is in a
        transaction, that one is joined behind a savepoint and is the caller's to commit, before the next call of the
        context; otherwise one is begun and committed here.

        Raises LeaseLost, TaskCancelled: before anything is written. TransactionOpen: inside another one.
        EffectInTransaction, TransactionAborted, TransactionTimeout: nothing was kept. DatabaseUnavailable: nothing was
        kept, or the reply to the COMMIT was lost and the database did not come back to say.
        """
        refuse_nested()
        if self._scope.joined is not None:
            await left_open(self._scope, self._db)
        async with nullcontext(conn) if conn is not None else self._own().lent() as mine:
            runner = joined(mine) if conn is not None else OnAsyncpg(mine)
            theirs = runner.in_transaction
            begun = await _begun(runner)
            transaction: OpenTransaction | None = None
            asked_at = monotonic()  # the server counts from later on: it never ends one that is not overdue here
            try:
                held = await runner.run(hold_fence(self._scope.lease.fence, joined=conn is not None))
                transaction = OpenTransaction(self._scope, runner, held, asked_at)
                with within(transaction):
                    async with asyncio.timeout(held.limit_s):
                        yield mine
                    await runner.run(is_usable())
            except BaseException as exc:
                await _rolled_back(begun, exc)
                if (why := explained(exc, transaction, runner)) is exc:
                    raise
                raise why from exc
            await self._commit(begun, transaction, theirs=theirs)
        if transaction.steps and not theirs:
            self._guard.after_checkpoint()

    async def record(
        self, name: str, arguments: Any = None, result: Any = None, *, key: str | None = None
    ) -> dict[str, Any]:
        """Record a tool call whose result is known: what the block itself did. Returns the result as recorded.

        A later attempt that comes by, with `ctx.record` or `ctx.tool`, gets the first record and nothing runs.
        """
        flow = self._scope.tool(
            name, arguments, key=key, policy=ToolPolicy(on_doubt="retry"), execute=lambda _call, _arguments: result
        )
        with recording():
            return (await self._run(flow)).result

    async def record_llm(
        self, operation_type: str, *, prompt: Any, output: Any, model: str | None = None, sample: int | None = None
    ) -> Any:
        """Record a model's output that is known; returns the one on record, which `ctx.llm` gives from now on."""
        flow = self._scope.llm(
            operation_type, prompt, model=model or self._model, generate=lambda: output, sample=sample
        )
        with recording():
            return await self._run(flow)

    def _own(self) -> AsyncDatabase:
        if not isinstance(self._db, AsyncDatabase):
            raise ConfigInvalid("this context has no connection to lend", hint="pass one: ctx.transaction(conn=...)")
        return self._db

    async def _commit(
        self, begun: AbstractAsyncContextManager[Any], transaction: OpenTransaction, *, theirs: bool
    ) -> None:
        """COMMIT, or the release of the savepoint in the caller's. A cancellation meanwhile waits for its reply: else
        nobody would know."""
        commit = asyncio.ensure_future(_left(begun))
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            await asyncio.wait({commit}, timeout=transaction.held.limit_s)
            if commit.done() and not commit.cancelled() and commit.exception() is not None:
                taken_back(transaction)
            raise
        except DRIVER_ERRORS as exc:
            await self._found_out(transaction, exc)
        if theirs:
            self._scope.joined = transaction

    async def _found_out(self, transaction: OpenTransaction, exc: BaseException) -> None:
        """Returns if the COMMIT whose reply was lost happened; raises the error that it ended with if not."""
        if has_ended(exc, transaction.runner) and await adrive(self._db, settled(transaction)):
            return
        if (why := explained(exc, transaction, transaction.runner)) is exc:
            raise exc
        raise why from exc


async def _begun(runner: AsyncJoined) -> AbstractAsyncContextManager[Any]:
    begun = runner.begun()
    try:
        await begun.__aenter__()
    except DRIVER_ERRORS as exc:
        raise_mapped(exc)
    return begun


async def _left(begun: AbstractAsyncContextManager[Any]) -> None:
    await begun.__aexit__(None, None, None)


async def _rolled_back(begun: AbstractAsyncContextManager[Any], exc: BaseException) -> None:
    """The exception is the news, not what a rollback on a broken connection says about it."""
    with suppress(*DRIVER_ERRORS, TimeoutError):
        async with asyncio.timeout(ROLLBACK_S):
            await begun.__aexit__(type(exc), exc, exc.__traceback__)


class BlockingTransactions(BlockingBound[Transactions]):
    """The same, blocking."""

    @contextmanager
    def transaction(self, conn: psycopg.Connection[Any] | None = None) -> Iterator[psycopg.Connection[Any]]:
        """As `TaskContext.transaction`; the connection is one of psycopg. A handler that is busy elsewhere when its
        time is over learns it from its next statement, or at the end of the block.
        """
        refuse_nested()
        scope, db = self._context._scope, self._context._db
        if scope.joined is not None:
            self._wait(left_open(scope, db))
        with self._connection(conn) as mine:
            runner = OnPsycopg(mine)
            theirs = runner.in_transaction
            transaction: OpenTransaction | None = None
            block = _entered(mine)
            asked_at = monotonic()
            try:
                held = run_call(mine, hold_fence(scope.lease.fence, joined=conn is not None))
                transaction = OpenTransaction(scope, runner, held, asked_at)
                with within(transaction):
                    yield mine
                    transaction.check_time()
                    run_call(mine, is_usable())
            except BaseException as exc:
                with suppress(*DRIVER_ERRORS):
                    block.__exit__(type(exc), exc, exc.__traceback__)
                if (why := explained(exc, transaction, runner)) is exc:
                    raise
                raise why from exc
            try:
                block.__exit__(None, None, None)
            except DRIVER_ERRORS as exc:
                self._wait(self._context._found_out(transaction, exc))
            if theirs:
                scope.joined = transaction
        if transaction.steps and not theirs:
            self._context._guard.after_checkpoint()

    def record(self, name: str, arguments: Any = None, result: Any = None, *, key: str | None = None) -> dict[str, Any]:
        """As `TaskContext.record`."""
        return self._wait(self._context.record(name, arguments, result, key=key))

    def record_llm(
        self, operation_type: str, *, prompt: Any, output: Any, model: str | None = None, sample: int | None = None
    ) -> Any:
        """As `TaskContext.record_llm`."""
        return self._wait(
            self._context.record_llm(operation_type, prompt=prompt, output=output, model=model, sample=sample)
        )

    def _connection(self, conn: Any) -> AbstractContextManager[psycopg.Connection[Any]]:
        if conn is None:
            return Database.at(self._context._own().dsn).lending().connection()
        if not isinstance(conn, psycopg.Connection):
            raise InvalidInput(
                f"conn is of type {type(conn).__name__}, which a blocking handler cannot join",
                hint="pass a psycopg.Connection, or make the handler async",
            )
        return nullcontext(conn)


def _entered(conn: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    block = conn.transaction()
    try:
        block.__enter__()
    except psycopg.Error as exc:
        raise_mapped(exc)
    return block
