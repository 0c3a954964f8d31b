"""Running calls and flows: one definition, a blocking and an awaiting executor.

A `Call` is one call of one SQL function: its text, its arguments, how to read the rows. A flow is a generator that
yields calls, user code (`Invoke`) and waits (`Sleep`), and returns a result: logic between calls is written once and
driven by `drive` (psycopg, blocking) or `adrive` (asyncpg, awaited). A flow never holds a transaction.
"""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, Generic, LiteralString, NamedTuple, NoReturn, Protocol, TypeVar, cast

import asyncpg
import psycopg

from agentos.store.counts import counts
from agentos.store.errors import (
    AgentOSError,
    DatabaseBusy,
    DatabaseUnavailable,
    EngineReplaced,
    InvalidValue,
    LeaseLost,
    MissingPrivilege,
    SchemaIncomplete,
    SchemaMissing,
    TransportRefused,
    from_sqlstate,
)
from agentos.store.grants import fix_of
from agentos.store.schema import in_schema
from agentos.store.transport import refusal

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Together(NamedTuple, Generic[T_co]):
    """How a call may be made with others in one transaction (`calls.batch`). `function`: of the engine; `fence`: item,
    worker and token; `plain`: the reply when it went without anything special, from its row of the batch's reply;
    `size`: characters of what is long in it.
    """

    function: str
    fence: tuple[int, int, Any]
    plain: Callable[[Any], T_co]
    size: int


class Call(NamedTuple, Generic[T_co]):
    """One call of one SQL function. Parameters are `$1`, `$2`, each cast; both drivers take that text.

    `together`: it may go out with others, and is written or refused for itself all the same. `parts`: the functions
    that a batch stands for.
    """

    sql: LiteralString
    args: tuple[Any, ...]
    read: Callable[[Sequence[Any]], T_co]
    together: Together[T_co] | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invoke:
    """Run this: awaited when it is or returns a coroutine, in a thread when a flow is driven by an event loop."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    own_loop: bool = False
    """An async `fn` may be driven by the blocking API too, in an event loop of its own."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this many seconds, then go on."""

    seconds: float


Flow = Generator[Call[Any] | Invoke | Sleep, Any, T]


class SyncRunner(Protocol):
    """Whatever runs a call and blocks."""

    def run(self, call: Call[T]) -> T: ...


class AsyncRunner(Protocol):
    """Whatever runs a call and is awaited."""

    async def run(self, call: Call[T]) -> T: ...


def do(call: Call[T]) -> Flow[T]:
    """`row = yield from do(call)` inside a flow: keeps the type that a bare `yield` loses."""
    result: T = yield call
    return result


def invoke(fn: Callable[..., Any], *args: Any) -> Flow[Any]:
    """`value = yield from invoke(fn, ...)` inside a flow."""
    return (yield Invoke(fn, args))


def find_out(fn: Callable[..., Any], *args: Any) -> Flow[Any]:
    """`invoke` for a function that only looks at the world: the blocking API takes an async one too."""
    return (yield Invoke(fn, args, own_loop=True))


def drive(db: SyncRunner, flow: Flow[T]) -> T:
    """Run a flow to its end, blocking."""
    step, value = flow.send, cast(Any, None)
    while True:
        try:
            effect = step(value)
        except StopIteration as stop:
            return cast(T, stop.value)
        try:
            step, value = flow.send, _perform(db, effect)
        except BaseException as exc:  # surfaces inside the flow, where try/except is natural
            step, value = flow.throw, exc


def _perform(db: SyncRunner, effect: Call[Any] | Invoke | Sleep) -> Any:
    match effect:
        case Call():
            return db.run(effect)
        case Invoke(fn, args, own_loop):
            if own_loop and is_async(fn):
                return _in_own_loop(fn(*args))
            result = fn(*args)
            if inspect.isawaitable(result):
                close = getattr(result, "close", None)
                if close:
                    close()
                raise AgentOSError(
                    f"{getattr(fn, '__name__', fn)!r} is async, and this API blocks",
                    hint="pass a plain function here, or use the async API (agentos.core.app)",
                )
            return result
        case Sleep(seconds):
            time.sleep(seconds)
            return None


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine. Plain functions and methods are told at once; `inspect` takes 1.2 us."""
    plain = fn.__func__ if type(fn) is MethodType else fn
    if type(plain) is FunctionType and plain.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(fn)


def _in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """In a thread, because the caller's may run a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def adrive(db: AsyncRunner, flow: Flow[T]) -> T:
    """Run a flow to its end, awaited."""
    step, value = flow.send, cast(Any, None)
    while True:
        try:
            effect = step(value)
        except StopIteration as stop:
            return cast(T, stop.value)
        try:
            step, value = flow.send, await (db.run(effect) if type(effect) is Call else _aperform(db, effect))
        except BaseException as exc:  # as in `drive`; CancelledError too, so that a flow can clean up
            step, value = flow.throw, exc


async def _aperform(db: AsyncRunner, effect: Call[Any] | Invoke | Sleep) -> Any:
    match effect:
        case Call():
            return await db.run(effect)
        case Invoke(fn, args):
            if is_async(fn):
                return await fn(*args)
            result = await asyncio.to_thread(fn, *args)
            return await result if inspect.isawaitable(result) else result
        case Sleep(seconds):
            await asyncio.sleep(seconds)
            return None


def run_call(conn: psycopg.Connection[Any], call: Call[T]) -> T:
    """Run a call on a psycopg connection, in whatever transaction it is in.

    Raises the class of `agentos.store.errors` that the SQLSTATE names, DatabaseUnavailable if the connection broke.
    """
    try:
        with psycopg.RawCursor(conn, row_factory=psycopg.rows.dict_row) as cursor:
            return call.read(cursor.execute(in_schema(call.sql), call.args).fetchall())
    except (psycopg.Error, UnicodeEncodeError) as exc:
        raise_mapped(exc)


async def arun_call(conn: Any, call: Call[T]) -> T:
    """The same on an asyncpg connection (or its pool proxy), or an asynchronous one of psycopg."""
    if isinstance(conn, psycopg.AsyncConnection):
        return await _on_psycopg(conn, call)
    try:
        return call.read(await conn.fetch(in_schema(call.sql), *call.args))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise_mapped(exc)
    except asyncpg.InternalClientError as exc:  # a server that went away while the connection was idle, now and then
        conn.terminate()
        raise_mapped(exc)


async def _on_psycopg(conn: psycopg.AsyncConnection[Any], call: Call[T]) -> T:
    try:
        async with psycopg.AsyncRawCursor(conn, row_factory=psycopg.rows.dict_row) as cursor:
            return call.read(await (await cursor.execute(in_schema(call.sql), call.args)).fetchall())
    except (psycopg.Error, UnicodeEncodeError) as exc:
        raise_mapped(exc)


def raise_mapped(exc: BaseException) -> NoReturn:
    """Raise our error for a driver's. Classified by SQLSTATE alone: asyncpg files ours under FatalPostgresError."""
    code = getattr(exc, "sqlstate", None) or ""
    if not code and (refused := refusal(exc)):
        raise TransportRefused(refused[0], hint=refused[1]) from exc
    if isinstance(exc, _UNSENT) and not code:
        raise InvalidValue(
            f"a value was not sent to the database: {_first_line(exc)}",
            hint=_HOLDS,
        ) from exc
    if not code or code in _OUTAGES or (code[:2] in _OUTAGE_CLASSES and code not in _BUSY):
        raise DatabaseUnavailable(
            f"the database did not answer: {_first_line(exc)}",
            hint="check that it runs and can be reached; what was asked may or may not have happened",
        ) from exc
    message, hint, detail = _texts(exc)
    if code == "42501":
        raise MissingPrivilege(message, hint=hint or fix_of(message), detail=detail) from exc
    if mapped := from_sqlstate(code, message, hint, detail):
        if isinstance(mapped, LeaseLost):
            counts.fenced_writes.add()
        raise mapped from exc
    if message.startswith(_REPLACED.get(code, ())):
        raise EngineReplaced(
            f"the functions were replaced while the call ran: {message}",
            hint="nothing was written; call again (agentos migrate ran meanwhile)",
        ) from exc
    if code in _BUSY:
        raise DatabaseBusy(
            f"the database gave up: {message}",
            hint="nothing was written; try again, or see who locks it",
            detail=detail,
        ) from exc
    if code in ("3F000", "42P01", "42883"):
        raise SchemaMissing(
            f"the database has no (complete) agentos schema: {message}", hint="run `agentos migrate`"
        ) from exc
    if code == "23514" and message.startswith("no partition"):
        raise SchemaIncomplete(
            f"the day's partition is missing: {message}", hint="start a coordinator, or run `agentos migrate`"
        ) from exc
    if code[:2] in ("22", "54") or code in ("23502", "23514"):
        raise InvalidValue(f"the database refused a value: {message}", hint=hint or _HOLDS, detail=detail) from exc
    raise exc


_HOLDS = "text may hold no NUL and no lone surrogate, a number must fit its column, JSON must be JSON"
_UNSENT = (psycopg.DataError, UnicodeEncodeError)
_OUTAGE_CLASSES = ("08", "28", "53", "57", "58")
"""Connection, login, resources, operator, system: the server is there or not, what was asked is not at fault."""
_OUTAGES = ("25006", "25P03", "25P04", "3D000")
"""Read-only (a standby after a failover), ended because it idled or took too long, no such database."""
_BUSY = ("40001", "40P01", "55P03", "57014")
"""Serialization, deadlock, lock timeout, statement timeout: rolled back, and the connection is fine."""


_REPLACED = {
    "XX000": ("could not open relation with OID", "cache lookup failed for"),
    "0A000": ("cached plan must not change result type",),
}
"""What a call says whose function, row type or view another version's took the place of. The server never translates
the first two; who reads the third in another language sees the driver's own error."""


def _texts(exc: BaseException) -> tuple[str, str | None, str | None]:
    diag = getattr(exc, "diag", None)
    if diag is not None:
        return diag.message_primary or str(exc), diag.message_hint, diag.message_detail
    return getattr(exc, "message", None) or str(exc), getattr(exc, "hint", None), getattr(exc, "detail", None)


def _first_line(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]


__all__ = [
    "AsyncRunner", "Call", "Flow", "Invoke", "MissingPrivilege", "Sleep", "SyncRunner", "Together", "adrive",
    "arun_call", "do", "drive", "find_out", "invoke", "raise_mapped", "run_call",
]  # fmt: skip
