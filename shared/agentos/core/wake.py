"""Waking workers that listen: a NOTIFY of its own, after the commit, at most every 20 ms per process.

Inside submit it would halve the rate (NOTIFY takes a database-wide lock at commit). A lost wake-up costs a poll.
"""

import queue
import threading
import time
from weakref import WeakKeyDictionary

from agentos.core.logs import get_logger
from agentos.store.calls import workers
from agentos.store.connect import Database
from agentos.store.errors import AgentOSError

log = get_logger(__name__)

PAUSE_S = 0.02


class Waker:
    """Collects queues and tells their workers, from a daemon thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._queues: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Remember `name` for the next `flush`."""
        self._queues.put(name)

    def wake(self, name: str) -> None:
        """Soon; returns at once."""
        self.add(name)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._tell, name="agentos-wake", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Now: for a process that is about to end."""
        names = self._pending()
        if names:
            self._notify(names)

    def _pending(self) -> set[str]:
        names = set()
        while not self._queues.empty():
            names.add(self._queues.get())
        return names

    def _tell(self) -> None:
        while True:
            try:
                first = self._queues.get(timeout=30)
            except queue.Empty:
                return
            self._notify({first, *self._pending()})
            time.sleep(PAUSE_S)

    def _notify(self, names: set[str]) -> None:
        try:
            self._db.run(workers.wake(sorted(names)))
        except AgentOSError as exc:
            log.debug("wake-up not sent; the workers' poll finds the work", error=str(exc).splitlines()[0])


_wakers: WeakKeyDictionary[Database, Waker] = WeakKeyDictionary()
"""One for each pool: a handle has no other way to the one of the app that made it."""


def waker_of(db: Database) -> Waker:
    """The waker of a pool, on a connection beside it."""
    return _wakers.get(db) or _wakers.setdefault(db, Waker(db.beside()))
