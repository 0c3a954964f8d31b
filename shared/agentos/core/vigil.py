"""What a beat's thread does between two beats: it waits for the next one's time, on the connection that it beats on.

So it hears at once what the server says unasked: a notice on a channel it listens to, or that the session has ended.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from agentos.core.process import monotonic
from agentos.store.schema import schema

Notices = frozenset[str]


class Vigil:
    """`with Vigil() as vigil` in the thread that waits; `end` may be called from any other, at any time."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._sockets: tuple[socket.socket, ...] = ()

    def __enter__(self) -> Self:
        self._sockets = socket.socketpair()
        for each in self._sockets:
            each.setblocking(False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for each in self._sockets:
            each.close()

    def end(self) -> None:
        """Whoever waits returns at once, now and from now on."""
        self.ended.set()
        self.poke()

    def poke(self) -> None:
        """Whoever waits, or comes to wait, sees to what there is to do besides."""
        for each in self._sockets[1:]:
            with suppress(OSError):  # it has returned, and closed it; or has not come to read what is there
                each.send(b".")

    def keep(
        self, conn: psycopg.Connection[Any], seconds: float, heard: Callable[[Notices], None] | None,
        poked: Callable[[], None],
    ) -> None:  # fmt: skip
        """Wait so long, or until the end. `heard` gets what is said meanwhile on the channel of `listen`; `poked` is
        called after each `poke`, and may use the connection.

        Never longer, however much is said. Raises psycopg.OperationalError: when the session ends.
        """
        due = monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._sockets[0], selectors.EVENT_READ)
            selector.register(conn.fileno(), selectors.EVENT_READ)
            while (left_s := due - monotonic()) > 0 and not self.ended.is_set():
                notices = _arrived(conn)  # also what came with the beat's answer
                if notices and heard is not None:
                    heard(notices)
                for key, _ in selector.select(left_s):
                    if key.fileobj is self._sockets[0]:
                        self._sockets[0].recv(4096)
                        poked()


def listen(conn: psycopg.Connection[Any], heard: Callable[[Notices], None]) -> None:
    """From now on `heard` gets what the pool is told on this connection, while it beats too. First of all nothing:
    something may have been said while nobody listened.
    """
    conn.add_notify_handler(lambda notice: heard(frozenset({notice.payload})))
    conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"{schema()}_wake")))
    heard(frozenset())


def _arrived(conn: psycopg.Connection[Any]) -> Notices:
    conn.pgconn.consume_input()
    found = set()
    while (notice := conn.pgconn.notifies()) is not None:
        found.add(notice.extra.decode())
    return frozenset(found)
