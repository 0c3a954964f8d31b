"""Where a process can be made to die: before, during and after each call of the engine.

`before`: the statement was not sent. `during`: it was sent, and the process died without seeing a reply; the server may
have committed it or not. `after`: it is committed, and nobody was told.
"""

import asyncio
import difflib
import inspect
import os
import pkgutil
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import psycopg
from asyncpg.transaction import Transaction

import agentos.store.calls
from agentos.store import direct, run
from agentos.store.awaited import Watched
from agentos.store.errors import AgentOSError, InvalidInput
from agentos.store.schema import in_schema

CRASH_TIMES = ("before", "during", "after")
SENT_S = 0.0005
"""How long a blocking call is given to be sent before the process dies under it."""

COMMIT = "transaction_commit"
"""Where `ctx.transaction()` commits, and whatever makes several calls in one transaction."""

_FUNCTION = re.compile(r"\bagentos\.(\w+)\(")


class CrashPointNotReached(AgentOSError, AssertionError):
    """The process ended without passing the point where it was to die."""


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """At the `nth` time that `call` is made, `when`."""

    when: str
    call: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when}:{self.call}" + (f" (time {self.nth})" if self.nth > 1 else "")


_armed: list[CrashPoint] = []


@contextmanager
def crash_at(point: str, *, nth: int = 1) -> Iterator[None]:
    """Inside, `Pool.drain` runs in a process that kills itself -9 at `point`, the `nth` time it comes there.

    `point` is `before:CALL`, `during:CALL` or `after:CALL`, where CALL is a function of the engine: `claim`,
    `ledger_begin`, `ledger_finish`, `cache_begin`, `cache_finish`, `commit_checkpoint`, `complete`, `fail` ...
    (`crash_points()` lists them). The effect of a tool lies between `ledger_begin` and `ledger_finish`.
    Raises InvalidInput: if there is no such point.
    """
    _armed.append(parse(point, nth=nth))
    try:
        yield
    finally:
        _armed.pop()


def armed() -> CrashPoint | None:
    """The point of the innermost `crash_at`, if any."""
    return _armed[-1] if _armed else None


def parse(point: str, *, nth: int = 1) -> CrashPoint:
    """Raises InvalidInput: if there is no such point."""
    when, _, call = point.partition(":")
    known = crash_points()
    if when not in CRASH_TIMES or call not in known:
        near = difflib.get_close_matches(call, known, n=3) or list(known)
        raise InvalidInput(
            f"there is no crash point {point!r}",
            hint=f"write before:, during: or after: and a call of the engine, such as {', '.join(near)}",
        )
    if nth < 1:
        raise InvalidInput(f"nth is {nth}", hint="count from 1")
    return CrashPoint(when, call, nth)


def crash_points() -> tuple[str, ...]:
    """Every call of the engine."""
    names = {COMMIT}
    for module in pkgutil.iter_modules(agentos.store.calls.__path__):
        source = inspect.getsource(import_module(f"agentos.store.calls.{module.name}"))
        names.update(_FUNCTION.findall(source))
    return tuple(sorted(names))


@dataclass(slots=True)
class Saboteur:
    """Watches the calls of this process, tells each, and kills the process at one of them."""

    point: CrashPoint
    tell: Callable[[str], None]
    passed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def install(self) -> None:
        """From now on, for the rest of this process's life."""
        replaced: dict[Callable[..., Any], Callable[..., Any]] = {
            run.arun_call: self._awaited(run.arun_call),
            run.run_call: self._blocking(run.run_call),
            direct.put: self._putting(direct.put),
            direct.put_two: self._putting(direct.put_two),
        }
        for module in [found for name, found in sys.modules.items() if name.startswith("agentos.")]:
            for name in ("arun_call", "run_call", "put", "put_two"):
                if (really := getattr(module, name, None)) in replaced:
                    setattr(module, name, replaced[really])
        Watched.put = self._watching(Watched.put)  # type: ignore[method-assign]
        commit = "_Transaction__commit"  # what leaving the block of an asyncpg transaction does
        setattr(Transaction, commit, self._committing(getattr(Transaction, commit)))
        psycopg.Transaction.__exit__ = self._leaving(psycopg.Transaction.__exit__)  # type: ignore[method-assign]

    def _awaited(self, really: Callable[..., Any]) -> Callable[..., Any]:
        async def call_it(conn: Any, call: Any) -> Any:
            if not self._here(call):
                return await really(conn, call)
            if self.point.when == "before":
                self._die()
            if self.point.when == "during":
                # Prepared first, so that what is sent next is the call itself.
                await conn._get_statement(in_schema(call.sql), None)
                sending = asyncio.ensure_future(really(conn, call))
                await asyncio.sleep(0)
                sending.add_done_callback(lambda _: None)
                self._die()
            reply = await really(conn, call)
            self._die()
            return reply

        return call_it

    def _committing(self, really: Callable[..., Any]) -> Callable[..., Any]:
        """The COMMIT of `ctx.transaction()`, which is no call of the engine."""

        async def commit(transaction: Any) -> Any:
            if not self._is_here((COMMIT,)):
                return await really(transaction)
            if self.point.when == "before":
                self._die()
            if self.point.when == "during":
                sending = asyncio.ensure_future(really(transaction))
                await asyncio.sleep(0)
                sending.add_done_callback(lambda _: None)
                self._die()
            reply = await really(transaction)
            self._die()
            return reply

        return commit

    def _leaving(self, really: Callable[..., Any]) -> Callable[..., Any]:
        """The same, of a psycopg transaction: leaving its block without an error commits."""

        def leave(transaction: Any, kind: Any, *raised: Any) -> Any:
            if kind is not None or not self._is_here((COMMIT,)):
                return really(transaction, kind, *raised)
            return self._dying(really, transaction, kind, *raised)

        return leave

    def _blocking(self, really: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(conn: Any, call: Any) -> Any:
            return self._dying(really, conn, call) if self._here(call) else really(conn, call)

        return call_it

    def _putting(self, really: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a call without a cursor: its statement comes as a text, or with its arguments."""

        def put_it(conn: Any, *sent: Any) -> Any:
            text = sent[0] if isinstance(sent[0], str) else sent[0][0]
            here = self._is_here(_FUNCTION.findall(text))
            return self._dying(really, conn, *sent) if here else really(conn, *sent)

        return put_it

    def _watching(self, really: Callable[..., Any]) -> Callable[..., Any]:
        """The same where it is awaited."""

        async def put_it(watched: Any, *sent: Any) -> Any:
            if not self._is_here(_FUNCTION.findall(sent[0][0])):
                return await really(watched, *sent)
            if self.point.when == "before":
                self._die()
            sending = asyncio.ensure_future(really(watched, *sent))
            await (asyncio.sleep(SENT_S) if self.point.when == "during" else sending)
            return self._die()

        return put_it

    def _dying(self, really: Callable[..., Any], *args: Any) -> Any:
        """Here is where: before, while, or after it blocks."""
        if self.point.when == "during":
            threading.Thread(target=really, args=args, daemon=True).start()
            time.sleep(SENT_S)
        elif self.point.when == "after":
            really(*args)
        self._die()

    def _here(self, call: Any) -> bool:
        return self._is_here([*_FUNCTION.findall(call.sql), *call.parts])

    def _is_here(self, names: Sequence[str]) -> bool:
        with self._lock:
            for name in names:
                self.tell(name)
            if self.point.call not in names:
                return False
            before, self.passed = self.passed, self.passed + names.count(self.point.call)
            return before < self.point.nth <= self.passed

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
