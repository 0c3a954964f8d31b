"""Waking workers that listen: a NOTIFY of its own, after the commit, at most every 20 ms per process.

Inside submit it would halve the rate (NOTIFY takes a database-wide lock at commit). A lost wake-up costs a poll. The
first after a pause travels behind its submit, which may have handed its item to a worker that waits: then it tells that
one alone. The others go out on a connection beside.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from agentos.core.logs import get_logger
from agentos.store.calls import workers
from agentos.store.connect import Database
from agentos.store.direct import Form, Sent
from agentos.store.errors import AgentOSError

log = get_logger(__name__)

_WAKE = Form(workers.wake_behind("").sql, [None], (0,))
PAUSE_S = 0.02


class Waker:
    """Collects queues and tells their workers, from a daemon thread. `at_once`: the first wake-up after a pause is sent
    by whoever asks for it, who does not wait for the reply: a thread takes a millisecond to come to it. `db` is then
    for the waker alone.
    """

    def __init__(self, db: Database, *, at_once: bool = False) -> None:
        self._db = db
        self._at_once = at_once
        self._queues: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Whose workers are to be told; None: there is a reply to be read."""
        self._replies: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._asked: set[str] = set()
        """Names in there, forgotten before they are sent: the notice comes after whoever finds his here."""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        """Held from a wake-up to the end of the pause after it. Who sent one at once leaves it to the thread."""

    def add(self, name: str) -> None:
        """Remember `name` for the next `flush`."""
        self._queues.put(name)

    def wake(self, name: str) -> None:
        """Soon; returns at once."""
        if name in self._asked and not self._queues.empty():
            return
        if self._sent(name):
            self._queues.put(None)
        else:
            self._asked.add(name)
            self._queues.put(name)
        self._start()

    def put(self, db: Database, form: Form, texts: Sequence[str], name: str) -> None:
        """`Database.put` of what makes something ready in the queue `name`, and a wake-up: in the same message, when
        none went out lately. The server's process is awake then; one that had slept took 0.3 ms longer.
        """
        if not self._may_go_along():
            db.put(form, texts)
            self.wake(name)
            return
        try:
            db.put(form, texts, _word(name))
        finally:
            self._went_along()

    async def aput(self, db: Database, form: Form, texts: Sequence[str], name: str) -> None:
        """`put`, awaited."""
        if not self._may_go_along():
            await db.aput(form, texts)
            self.wake(name)
            return
        try:
            await db.aput(form, texts, _word(name))
        finally:
            self._went_along()

    def _may_go_along(self) -> bool:
        """Whether a wake-up may go along with a submit; then `_went_along` must follow."""
        return self._at_once and self._sending.acquire(blocking=False)

    def _went_along(self) -> None:
        self._replies.put(_nothing_to_read)
        self._queues.put(None)
        self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._asked.clear()  # of a thread that died
                self._thread = threading.Thread(target=self._tell, name="agentos-wake", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Now: for a process that is about to end."""
        if names := self._pending():
            self._notify(names)

    def _sent(self, name: str) -> bool:
        """Whether it is on its way."""
        if not self._at_once or not self._sending.acquire(blocking=False):
            return False
        try:
            reply = self._db.send(workers.wake_one(name))
        except AgentOSError as exc:
            self._replies.put(None)
            self._lost(exc)
            return False
        self._replies.put(None if reply is None else reply.wait)
        return reply is not None

    def _pending(self) -> set[str]:
        names = set()
        while not self._queues.empty():
            if (name := self._queues.get()) is not None:
                names.add(name)
        self._asked.clear()
        return names

    def _tell(self) -> None:
        while True:
            try:
                first = self._queues.get(timeout=30)
            except queue.Empty:
                if self._leaves():
                    return
                continue
            names = {first} if first is not None else set()
            while not self._sending.acquire(blocking=False):  # somebody sent one at once, or along with a submit
                try:
                    self._end(self._replies.get(timeout=PAUSE_S))
                except queue.Empty:  # the submit waits for a lock, and nobody else for it
                    if names := names | self._pending():
                        self._notify(names)
                        names = set()
            names |= self._pending()
            if names:
                self._notify(names)
                time.sleep(PAUSE_S)
            self._sending.release()

    def _leaves(self) -> bool:
        """Whether nothing has come meanwhile; whoever comes after this starts another thread."""
        with self._lock:
            if self._queues.empty():
                self._thread = None
            return self._thread is None

    def _end(self, read_reply: Callable[[], None] | None) -> None:
        if read_reply is not None:
            try:
                read_reply()
            except AgentOSError as exc:
                self._lost(exc)
            time.sleep(PAUSE_S)
        self._sending.release()

    def _notify(self, names: set[str]) -> None:
        try:
            self._db.run(workers.wake(sorted(names)))
        except AgentOSError as exc:
            self._lost(exc)

    def _lost(self, exc: AgentOSError) -> None:
        log.debug("wake-up not sent; the workers' poll finds the work", error=str(exc).splitlines()[0])


def _word(name: str) -> Sent:
    return _WAKE.sql, _WAKE.filled((name,))


def _nothing_to_read() -> None:
    """The submit that it went along with has its reply."""


_wakers: WeakKeyDictionary[Database, Waker] = WeakKeyDictionary()
"""One for each pool: a handle has no other way to the one of the app that made it."""


def waker_of(db: Database) -> Waker:
    """The waker of a pool, on a connection beside it."""
    return _wakers.get(db) or _wakers.setdefault(db, Waker(db.beside(), at_once=True))
