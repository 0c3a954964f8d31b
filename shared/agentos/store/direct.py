"""Calls that are made so often that their cursor is most of what they cost the client: written once, sent as they are.

After each commit a program wakes with cold caches, and every line of Python is then five times as dear as in a loop. So
what a call always says is written for the wire once, its statement is prepared once for each connection, and libpq is
asked by psycopg's own waiting loop, which Ctrl-C interrupts, or by a loop of asyncio (`store/awaited.py`).
"""

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import generators, pq

from agentos.store.run import Call, raise_mapped
from agentos.store.schema import in_schema

_numbers = count()
_UNKNOWN_STATEMENT = "26000"
T = TypeVar("T")
Asking = Generator[Any, Any, T]
"""A conversation with the server: yields what it waits for of the socket, is sent what has come about of it."""
Texts = list[bytes | None]
Sent = tuple[LiteralString, Texts]
"""A statement and its arguments."""


class Session(psycopg.Connection[Any]):
    """A connection of a pool. `prepared`: the names of statements prepared here, by their text. `born`: on the
    monotonic clock.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the driver makes it."""
        super().__init__(*args, **kwargs)
        self.prepared: dict[str, bytes] = {}
        self.born = time.monotonic()

    @property
    def pooled(self) -> bool:
        """Whether the next statement may run in another session of the server."""
        return self.prepare_threshold is None

    def __del__(self, *_: Any) -> None:
        """That it is open when the program ends is no mistake, of which the driver would warn."""


@dataclass(frozen=True, slots=True)
class Form:
    """A call of which all is written but the arguments at `blanks`. Its reply is not read. `followed`: what may be
    sent in place of `sql` when another call goes along in the same message.
    """

    sql: LiteralString
    arguments: Sequence[bytes | None]
    blanks: Sequence[int]
    followed: LiteralString | None = None

    def before_another(self, *, pooled: bool) -> LiteralString:
        """What is sent when another call goes along: `followed` leaves word for that in the session."""
        return self.sql if pooled or self.followed is None else self.followed

    def filled(self, texts: Sequence[str]) -> Texts:
        """All arguments, with these in the blanks. Raises InvalidValue: if one of them cannot be sent."""
        arguments = [*self.arguments]
        try:
            for blank, text in zip(self.blanks, texts, strict=True):
                arguments[blank] = _text(text)
        except (_NotPlain, UnicodeEncodeError) as exc:
            raise_mapped(exc)
        return arguments


def form_of(call: Call[Any], blanks: Sequence[int], followed: LiteralString | None = None) -> Form | None:
    """The call without the arguments at `blanks`; None: something else that it says only a cursor can send."""
    try:
        return Form(call.sql, [_text(each) for each in call.args], blanks, followed)
    except (_NotPlain, UnicodeEncodeError):
        return None


class _NotPlain(psycopg.DataError):
    """It is not written as plain text."""


def _text(value: object) -> bytes | None:
    if value is None:
        return None
    if type(value) is str and "\0" not in value:  # libpq would take it to end there
        return value.encode()
    if type(value) is int or type(value) is float:
        return repr(value).encode()
    raise _NotPlain("text cannot hold a NUL (0x00)")


def put(conn: Session, sql: LiteralString, arguments: Texts) -> None:
    """Run a call outside any transaction: it is one. Raises as `run_call`."""
    try:
        conn.wait(putting(conn, sql, arguments))
    except psycopg.Error as exc:
        raise_mapped(exc)


def put_two(conn: Session, first: Sent, second: Sent) -> None:
    """`put` the first, and the second behind it in the same message: a transaction of its own, which may come about
    though the first is refused. Raises what the first raises; what the second comes to is not told.
    """
    try:
        conn.wait(putting_two(conn, first, second))
    except psycopg.Error as exc:
        raise_mapped(exc)


def putting(conn: Session, sql: LiteralString, arguments: Texts) -> Asking[None]:
    """What `put` does, for whoever waits for the socket in his own way. Raises the driver's errors."""
    result = yield from _asked(conn, sql, arguments)
    if result.status == pq.ExecStatus.FATAL_ERROR and _forgotten(result):
        conn.prepared.clear()
        result = yield from _asked(conn, sql, arguments)
    _check(result)


def putting_two(conn: Session, first: Sent, second: Sent) -> Asking[None]:
    """The same of `put_two`."""
    if conn.pooled:
        yield from putting(conn, *first)
        yield from _trying(conn, second)
        return
    results = yield from _asked_both(conn, first, second)
    forgotten = [result.status == pq.ExecStatus.FATAL_ERROR and _forgotten(result) for result in results]
    if any(forgotten):
        conn.prepared.clear()
    if forgotten[0]:
        yield from putting(conn, *first)
    else:
        _check(results[0])
    if any(forgotten):  # behind the first, which may have left it a word
        yield from _trying(conn, second)


def _trying(conn: Session, sent: Sent) -> Asking[None]:
    with suppress(psycopg.Error):
        yield from putting(conn, *sent)


def _asked_both(conn: Session, *calls: Sent) -> Asking[list[pq.abc.PGresult]]:
    pgconn = conn.pgconn
    named = []
    for sql, arguments in calls:
        named.append(((yield from _name(conn, sql)), arguments))
    pgconn.enter_pipeline_mode()
    try:
        for name, arguments in named:
            pgconn.send_query_prepared(name, arguments)
            pgconn.pipeline_sync()
        results = yield from _replies(pgconn, len(named))
        pgconn.exit_pipeline_mode()
    except BaseException:  # cut off: nobody knows what comes next from it
        conn.close()
        raise
    return results


def _replies(pgconn: pq.abc.PGconn, count_of: int) -> Asking[list[pq.abc.PGresult]]:
    """That to each call; the one to its sync comes after it."""
    yield from generators.send(pgconn)
    results = []
    for _ in range(count_of):
        results.append((yield from generators.fetch_many(pgconn))[-1])
        yield from generators.fetch_many(pgconn)
    return results


def _asked(conn: Session, sql: LiteralString, arguments: Texts) -> Asking[pq.abc.PGresult]:
    if conn.pooled:
        conn.pgconn.send_query_params(in_schema(sql).encode(), arguments)
    else:
        conn.pgconn.send_query_prepared((yield from _name(conn, sql)), arguments)
    return (yield from _reply(conn))


def _name(conn: Session, sql: LiteralString) -> Asking[bytes]:
    """Of the prepared statement: another one in another schema."""
    text = in_schema(sql)
    if (known := conn.prepared.get(text)) is not None:
        return known
    name = b"agentos_%d" % next(_numbers)
    conn.pgconn.send_prepare(name, text.encode())
    _check((yield from _reply(conn)))
    conn.prepared[text] = name
    return name


def _reply(conn: Session) -> Asking[pq.abc.PGresult]:
    results: list[pq.abc.PGresult] = yield from generators.execute(conn.pgconn)
    return results[-1]


def _check(result: pq.abc.PGresult) -> None:
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")


def _forgotten(result: pq.abc.PGresult) -> bool:
    """The driver says DEALLOCATE ALL when it cannot tell which of its own are left; nothing has run then."""
    return psycopg.errors.error_from_result(result, encoding="utf-8").sqlstate == _UNKNOWN_STATEMENT
