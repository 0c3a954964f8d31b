"""The psycopg connections that the calls of one process go out on.

psycopg's own pool takes 20 us of a submit to lend a connection and to take it back. The connection that came back last
goes out first: whoever makes one call after the other keeps one process of the server at it, whose caches are warm.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from agentos.store.direct import Session
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import raise_mapped

IDLE_S = 60.0
"""A connection that nobody wanted for so long is closed."""
LIFETIME_S = 3600.0
"""One that is older is closed when it comes back: a process of the server grows with what it has seen."""
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0

Reset = Callable[[Session], None]


class SessionPool:
    """Up to `max_size` connections, each made by `connect` when it is needed. `timeout_s`: how long `take` tries.

    `reset`: run on each that comes back.
    """

    def __init__(
        self, connect: Callable[[], Session], max_size: int, *, timeout_s: float, reset: Reset | None = None
    ) -> None:
        self.closed = False
        self._connect, self._reset = connect, reset
        self._max_size, self._timeout_s = max_size, timeout_s
        self._free: list[tuple[Session, float]] = []
        """With the time since when; the last to come back is the last. It is changed by single operations, which need
        no lock."""
        self._made = 0
        self._waiting = 0
        self._changed = threading.Condition()
        self._reaper: threading.Thread | None = None
        self._end = threading.Event()

    def take(self) -> Session:
        """One for the caller alone, until `give`. Raises DatabaseUnavailable: if there is none in time."""
        if (conn := self.free()) is not None:
            return conn
        until = time.monotonic() + self._timeout_s
        while not self._has_room(until):
            if (conn := self.free()) is not None:
                return conn
        return self._new(until)

    def give(self, conn: Session) -> None:
        """Back. What is open on it is rolled back; one that is broken, or at something still, is closed."""
        idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
        if not idle or self._reset is not None:
            idle = self._cleaned(conn)
        now = time.monotonic()
        if not idle or now > conn.born + LIFETIME_S:
            self._forget(conn)
            return
        self._free.append((conn, now))
        if self.closed:  # looked at behind it: another thread that closes the pool meanwhile may not have seen this one
            self.close()
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def close(self) -> None:
        """Close those that are free; the others are when they come back."""
        self.closed = True
        self._end.set()
        while self._free:
            with suppress(IndexError):
                self._forget(self._free.pop()[0])
        with self._changed:
            self._changed.notify_all()

    def free(self) -> Session | None:
        """`take`, if there is one that nobody has."""
        while self._free and not self.closed:
            with suppress(IndexError):  # another thread was quicker
                conn, _ = self._free.pop()
                if conn.pgconn.status == ConnStatus.OK:
                    return conn
                self._forget(conn)
        return None

    def _has_room(self, until: float) -> bool:
        """Whether the caller may make a new one; else one has come back. Waits for either."""
        with self._changed:
            self._waiting += 1
            try:
                while not self._free and self._made >= self._max_size and not self.closed:
                    if not self._changed.wait(until - time.monotonic()):
                        raise DatabaseUnavailable(
                            f"none of {self._max_size} connections was free within {self._timeout_s:g} s",
                            hint="fewer threads, or shorter transactions; nothing was asked of the database",
                        )
            finally:
                self._waiting -= 1
            if self.closed:
                raise DatabaseUnavailable("the pool is closed", hint="nothing was asked of the database")
            if self._free:
                return False
            self._made += 1
            return True

    def _new(self, until: float) -> Session:
        try:
            conn = self.insist(until)
        except BaseException:
            self._forget(None)
            raise
        self._watch()
        return conn

    def insist(self, until: float) -> Session:
        """A connection beside those of the pool. Tried again and again: a server that restarts, or takes over, is back
        soon. Raises DatabaseUnavailable: if it is not by then.
        """
        pause = FIRST_RETRY_S
        while True:
            try:
                return self._connect()
            except psycopg.OperationalError as exc:
                if time.monotonic() + pause > until or self.closed:
                    raise_mapped(exc)
            time.sleep(pause)
            pause = min(2 * pause, LAST_RETRY_S)

    def _cleaned(self, conn: Session) -> bool:
        """Whether it can be lent again."""
        with suppress(psycopg.Error):
            if conn.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                conn.rollback()
            if self._reset is not None and conn.pgconn.transaction_status == TransactionStatus.IDLE:
                self._reset(conn)
            return conn.pgconn.transaction_status == TransactionStatus.IDLE
        return False

    def _forget(self, conn: Session | None) -> None:
        if conn is not None:
            conn.close()
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="agentos-idle", daemon=True)
                self._reaper.start()

    def _reap(self) -> None:
        """Closes what idles, and ends with the last connection."""
        while True:
            oldest = self._free[:1]
            wait_s = oldest[0][1] + IDLE_S - time.monotonic() if oldest else IDLE_S
            if wait_s > 0:
                self._end.wait(wait_s)
            else:
                self._close_idle()
            with self._changed:
                if self._made == 0 or self.closed:
                    self._reaper = None
                    return

    def _close_idle(self) -> None:
        with suppress(IndexError):
            conn, since = self._free.pop(0)
            if time.monotonic() > since + IDLE_S:
                self._forget(conn)
            else:
                self._free.insert(0, (conn, since))
