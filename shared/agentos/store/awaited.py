"""Conversations of `store/direct.py` with a server, awaited: a loop of asyncio watches the connection's socket.

The socket is watched for as long as the connection is: to begin and to end that for each call took 20 us of uvloop and
70 of asyncio's own loop, as much as the call itself.
"""

import asyncio
import os
from weakref import ref

import psycopg
from psycopg.waiting import Ready, Wait

from agentos.store.direct import Asking, Sent, Session, putting, putting_two
from agentos.store.run import raise_mapped


class Watched:
    """A connection that the running loop watches, for one caller at a time."""

    def __init__(self, conn: Session) -> None:
        loop = asyncio.get_running_loop()
        self._conn, self._socket, self._pid = conn, conn.pgconn.socket, os.getpid()
        self._loop = ref(loop)  # which keeps this one, and is not to be kept by it
        self._asking: Asking[None] | None = None
        self._answered: asyncio.Future[None]
        self._writes = self._ended = False
        self._used = True
        loop.add_reader(self._socket, self._on, Ready.R)

    @property
    def born(self) -> float:
        """On the monotonic clock."""
        return self._conn.born

    @property
    def pooled(self) -> bool:
        """As of a `Session`."""
        return self._conn.pooled

    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self._ended or self._conn.closed

    def idles(self) -> bool:
        """Whether nothing was put since this was last asked."""
        used, self._used = self._used, False
        return not used

    async def put(self, first: Sent, second: Sent | None = None) -> None:
        """`direct.put`, or `put_two`. Cut off, it closes the connection: whether the call came about is not known."""
        self._used = True
        asking = putting(self._conn, *first) if second is None else putting_two(self._conn, first, second)
        self._asking, self._answered = asking, asyncio.get_running_loop().create_future()
        self._go_on(asking, None)
        try:
            await self._answered
        except psycopg.Error as exc:
            raise_mapped(exc)
        except BaseException:
            self.terminate()
            raise

    def terminate(self) -> None:
        """Close it at once. In a process that was forked off it is another's, and is left alone."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = True
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            if self._asking is not None and not self._answered.done():  # nobody else tells its caller
                self._answered.set_exception(psycopg.OperationalError("the connection was closed under the call"))
        self._asking = None
        self._conn.close()

    def _on(self, ready: Ready) -> None:
        if self._asking is not None:
            self._go_on(self._asking, ready)
            return
        try:
            self._conn.pgconn.consume_input()  # a word about a setting, or the end
        except psycopg.Error:
            self.terminate()

    def _go_on(self, asking: Asking[None], ready: Ready | None) -> None:
        try:
            wanted = asking.send(ready)
        except StopIteration:
            self._end(None)
        except Exception as exc:  # raised where the call is awaited
            self._end(exc)
        else:
            if bool(wanted & Wait.W) != self._writes:
                self._watch_writing(not self._writes)

    def _watch_writing(self, wanted: bool) -> None:
        self._writes = wanted
        if wanted:
            asyncio.get_running_loop().add_writer(self._socket, self._on, Ready.W)
        else:
            asyncio.get_running_loop().remove_writer(self._socket)

    def _end(self, exc: Exception | None) -> None:
        self._asking = None
        if self._writes:
            self._watch_writing(False)
        if self._conn.closed:
            self.terminate()
        if self._answered.done():  # nobody waits for it any more
            return
        if exc is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(exc)
