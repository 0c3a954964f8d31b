"""Writing what was submitted: in a transaction of its own, or in one of the caller's, awaited or not.

Killed before the caller's COMMIT, nothing is there; after it, the tasks and his rows. The wake-up is a hint.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypedDict

import psycopg

from agentos.core.app.keyed import submit_keyed
from agentos.core.budget import Budget
from agentos.core.tracing.submitting import submitting
from agentos.store.calls import flow
from agentos.store.connect import Database, OnConnection
from agentos.store.errors import InvalidInput
from agentos.store.joined import DRIVER_ERRORS, AsyncJoined
from agentos.store.pipeline import run_all
from agentos.store.run import Call, Flow, adrive, do, drive, invoke, raise_mapped, run_call

Lane = tuple[str, str, int | None, str, str]
"""Queue, kind, version (None: the newest that a worker runs), tenant and limit key ("": none)."""
Lanes = set[Lane]


OnDuplicate = Literal["return", "raise"]
"""What a submit does that finds the task of a former one."""


class SubmitManyOptions(TypedDict, total=False):
    """What `App.asubmit_many` takes, as `App.submit_many` does."""

    task_ids: Sequence[str] | None
    title: str | None
    queue: str | None
    priority: int
    delay_s: float
    max_attempts: int | None
    deadline_s: float | None
    version: int | None
    tenant: str
    concurrency_key: str | None


class SubmitOptions(TypedDict, total=False):
    """What `App.asubmit` takes, as `App.submit` does."""

    task_id: str | None
    title: str | None
    queue: str | None
    priority: int
    delay_s: float
    max_attempts: int | None
    budget: Budget | None
    deadline_s: float | None
    version: int | None
    idempotency_key: str | None
    tenant: str
    concurrency_key: str | None
    unique_for_s: float | None
    unique_key: str | None
    on_duplicate: OnDuplicate


@dataclass(frozen=True, slots=True)
class Submission:
    """Tasks to be made. `calls`: one call, or several to be run all or none, each made when it is asked for.

    `reserve`: its idempotency key, if it has one; what it finds is the task to be returned instead.
    """

    lanes: Sequence[Lane]
    task_ids: Sequence[str]
    calls: Call[Any] | Iterator[Call[Any]]
    reserve: Call[str | None] | None = None
    on_duplicate: OnDuplicate = "return"

    @property
    def queue(self) -> str:
        """Whose workers are to be told."""
        return self.lanes[0][0]


@contextmanager
def traced(asked: Submission) -> Iterator[Submission]:
    """The same, for a block in which it is written; its tasks carry the caller's trace along, if there is one."""
    queue, kind, *_ = asked.lanes[0]
    with submitting(kind, queue, list(asked.task_ids)) as carry:
        if carry is None:
            yield asked
        else:
            calls = asked.calls
            yield replace(asked, calls=carry(calls) if isinstance(calls, Call) else map(carry, calls))


def write(db: Database, asked: Submission) -> str | None:
    """In a transaction of its own. Returns the task that has its idempotency key already, if any.

    Raises TaskExists, IdempotencyConflict, and whatever making the calls raises.
    """
    if isinstance(asked.calls, Call):
        if asked.reserve is not None:
            return submit_keyed(db, None, asked.calls, asked.reserve)
        db.run(asked.calls)
        return None
    first, second = next(asked.calls, None), next(asked.calls, None)
    with db.connection() as conn:
        if first is not None and second is None:
            run_call(conn, first)  # one statement is a transaction by itself
        elif first is not None:
            run_all(conn, chain([first, second] if second else [first], asked.calls))
    return None


def checked_connection(conn: object) -> psycopg.Connection[Any]:
    """Raises InvalidInput: if it is not one of psycopg that blocks."""
    if not isinstance(conn, psycopg.Connection):
        raise InvalidInput(
            f"conn is of type {type(conn).__name__}, which `submit` and `submit_many` cannot join",
            hint="pass a psycopg.Connection, or use `await app.asubmit(..., conn=conn)` for those of asyncio",
        )
    return conn


def write_on(conn: psycopg.Connection[Any], db: Database, asked: Submission, lanes: Lanes) -> str | None:
    """In the transaction of `conn`; several calls behind a savepoint. `lanes`: those that are known, and will be."""
    runner = OnConnection(conn)
    if asked.task_ids:
        drive(runner, _lane_first(db, asked, lanes))
    if isinstance(asked.calls, Call):
        if asked.reserve is not None:
            return submit_keyed(db, conn, asked.calls, asked.reserve)
        runner.run(asked.calls)
    elif asked.task_ids:
        _begin_as_he_would(conn)
        run_all(conn, asked.calls)
    return None


def _begin_as_he_would(conn: psycopg.Connection[Any]) -> None:
    """Outside autocommit his first statement begins his transaction; one that `transaction()` begins it commits too."""
    if not conn.autocommit and conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        try:
            conn.execute("SELECT 1")
        except psycopg.Error as exc:
            raise_mapped(exc)


async def awrite_on(runner: AsyncJoined, db: Database, asked: Submission, lanes: Lanes) -> str | None:
    """As `write_on`, on a connection of asyncio."""
    if asked.task_ids:
        await adrive(runner, _lane_first(db, asked, lanes))
    if isinstance(asked.calls, Call):
        if asked.reserve is not None:
            async with _all_or_none(runner):
                if (former := await runner.run(asked.reserve)) is not None:
                    return former
                await runner.run(asked.calls)
            return None
        await runner.run(asked.calls)
    elif asked.task_ids:
        async with _all_or_none(runner):
            for call in asked.calls:
                await runner.run(call)
    return None


def _lane_first(db: Database, asked: Submission, lanes: Lanes) -> Flow[None]:
    """Make the lane of a new kind in a transaction of its own: one that stays open would keep everybody who submits
    the kind waiting for its COMMIT. Not if his own transaction has made it: that would wait for itself.
    """
    for lane in asked.lanes:
        if lane in lanes:
            continue
        missing = flow.lane_is_missing(*lane)
        if (yield from invoke(db.run, missing)):
            if not (yield from do(missing)):
                continue
            yield from invoke(db.run, flow.lane_of(*lane))
        lanes.add(lane)


_NOTHING: Call[None] = Call("SELECT 1 AS one", (), lambda _: None)


@asynccontextmanager
async def _all_or_none(runner: AsyncJoined) -> AsyncIterator[None]:
    """A savepoint in his transaction, which he may have begun in whatever way; a transaction if he has none."""
    conn: Any = runner.conn
    try:
        if not getattr(conn, "autocommit", True) and not runner.in_transaction:
            await runner.run(_NOTHING)  # begins his transaction, as any statement of his would
        if not runner.in_transaction:
            async with runner.begun():
                yield
            return
        await conn.execute("SAVEPOINT agentos_submit_many")
        try:
            yield
        except BaseException:
            with suppress(*DRIVER_ERRORS):  # what happened is the news
                await conn.execute("ROLLBACK TO SAVEPOINT agentos_submit_many")
            raise
        await conn.execute("RELEASE SAVEPOINT agentos_submit_many")
    except DRIVER_ERRORS as exc:
        raise_mapped(exc)
