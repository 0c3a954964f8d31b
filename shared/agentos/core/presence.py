"""Being alive in the database's eyes: a worker row, and a thread of its own that keeps it beating.

The beat has its own thread and connection, so that neither a busy event loop nor a full pool can stop it. Between two
beats it listens there for whoever wants to be woken. Whether the
process may still trust its leases is told by its own monotonic clock, counted from *before* the last beat that
succeeded was sent: after two thirds of the TTL no side effect may start, and before the TTL ends handlers are stopped.
"""

import atexit
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

import psycopg

from agentos.core.logs import get_logger
from agentos.core.process import host, monotonic, new_worker_id, process_identity
from agentos.core.vigil import Notices, Vigil, listen
from agentos.store.calls import workers
from agentos.store.connect import Database, OnConnection, connect
from agentos.store.errors import AgentOSError, WorkerDead
from agentos.store.settings import Settings, load_settings

log = get_logger(__name__)

TRUST = 2 / 3
"""Share of the TTL without a beat after which nothing new is started."""

AT_FIRST_S = 0.2
"""The longest pause before the first try to beat again."""


def package_version() -> str:
    """The installed version of agentos-pool."""
    try:
        return version("agentos-pool")
    except PackageNotFoundError:
        return "0+unknown"


def _ignore_items(_items: frozenset[int]) -> None:
    """Nobody asked to be told."""


@dataclass(slots=True)
class Heartbeat:
    """Beats for one worker row from a daemon thread. `lag_ms` is asked before each beat.

    `on_cancelled` gets the held items whose task was cancelled, `on_paused` those whose task is paused, `on_dead` is
    called once when the row was declared dead. `on_notice`, if given, gets the queues that have new work; none of them:
    any may. All on the beat's thread.
    """

    dsn: str
    worker_id: int
    beat_s: float
    ttl_s: float
    gone_s: float = 0.0
    """For how long its sessions may be gone before its leases are taken; 0: for any time."""
    lag_ms: Callable[[], int] = lambda: 0
    on_cancelled: Callable[[frozenset[int]], None] = _ignore_items
    on_paused: Callable[[frozenset[int]], None] = _ignore_items
    on_dead: Callable[[], None] = lambda: None
    on_notice: Callable[[Notices], None] | None = None
    clock_skew_s: float = 0.0
    """The database's clock minus this host's, give or take half a beat's round trip."""
    _alive_since: float = field(default_factory=monotonic)
    _lost_at: float | None = None
    _dead: bool = False
    _waits: bool = False
    _standing_by: bool = False
    _vigil: Vigil = field(default_factory=Vigil)
    _thread: threading.Thread | None = None

    def start(self, registered_at: float) -> None:
        """Start beating. `registered_at`: by `monotonic`, before the row was sent."""
        self._alive_since = registered_at
        self._thread = threading.Thread(target=self._beat_until_stopped, name="agentos-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and wait for the thread."""
        self._vigil.end()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=self.ttl_s)

    def stand_by(self) -> None:
        """Let submits hand work to this worker, soon and until `stand_down`; said again it costs nothing."""
        self._waits = True
        if not self._standing_by:
            self._vigil.poke()

    def stand_down(self) -> None:
        """Let them hand it no more, soon. From any thread."""
        self._waits = False
        if self._standing_by:
            self._vigil.poke()

    @property
    def standing_by(self) -> bool:
        """Whether submits may hand it work now: that session of its may have ended meanwhile."""
        return self._standing_by

    @property
    def age_s(self) -> float:
        """Seconds since the last beat that succeeded was sent."""
        return monotonic() - self._alive_since

    @property
    def trusted(self) -> bool:
        """Whether a side effect may be started now."""
        return not self._dead and self.age_s < self.ttl_s * TRUST and not self._alone

    @property
    def _alone(self) -> bool:
        """Whether the server may take this process for gone: it has lost the beat's session, and made no other yet."""
        lost_at = self._lost_at
        return self.gone_s > 0 and lost_at is not None and monotonic() - lost_at >= self.gone_s

    @property
    def dead(self) -> bool:
        """Whether the row was declared dead: it never comes back."""
        return self._dead

    @property
    def lost(self) -> bool:
        """Whether leases must be taken for lost: declared dead, or too near the end of the TTL without a beat."""
        return self._dead or self.age_s >= self.ttl_s * 0.9

    def _beat_until_stopped(self) -> None:
        with self._vigil as vigil:
            while not vigil.ended.is_set():
                try:
                    with connect(self.dsn, application="agentos-beat") as conn:
                        self._beat_on(conn)
                except WorkerDead:
                    self._declared_dead()
                    return
                except (AgentOSError, psycopg.Error, OSError) as exc:  # whatever it is, the next beat may get through
                    log.warning("beat failed", error=str(exc).splitlines()[0], age_s=round(self.age_s, 1))
                    # Full jitter: a fleet whose server comes back must not do so in one moment. Less at first: the
                    # session alone may have ended, and a process without any is soon taken for gone.
                    first, self._lost_at = self._lost_at is None, self._lost_at or monotonic()
                    vigil.ended.wait(random.uniform(0, min(self.beat_s, AT_FIRST_S if first else 1.0)))

    def _beat_on(self, conn: psycopg.Connection[Any]) -> None:
        db = OnConnection(conn)
        self._beat(db)
        if self.on_notice is not None:
            listen(conn, self.on_notice)
        try:
            while not self._vigil.ended.is_set():
                self._vigil.keep(conn, self.beat_s, self.on_notice, lambda: self._say_if_it_waits(db))
                if not self._vigil.ended.is_set():
                    self._beat(db)
        finally:
            self._standing_by = False  # with its session

    def _say_if_it_waits(self, db: OnConnection) -> None:
        if (waits := self._waits) != self._standing_by:
            self._standing_by = db.run(workers.stand_by(self.worker_id, waits=waits))
            if self._waits != waits:  # told otherwise by who still saw the former state
                self._vigil.poke()

    def _beat(self, db: OnConnection) -> None:
        sent, asked_at = monotonic(), time.time()
        pid = db.conn.pgconn.backend_pid
        told = db.run(workers.beat(self.worker_id, self.lag_ms(), round(self.clock_skew_s * 1000), pid))
        self.clock_skew_s = told.server_time.timestamp() - (asked_at + time.time()) / 2
        self._alive_since, self._lost_at = sent, None
        if told.cancelled:
            self.on_cancelled(told.cancelled)
        if told.paused:
            self.on_paused(told.paused)

    def _declared_dead(self) -> None:
        self._dead = True
        log.error("declared dead: no beat arrived within the TTL", worker_id=self.worker_id, ttl_s=self.ttl_s)
        self.on_dead()


class Presence:
    """A registered worker row with its heartbeat: `with Presence(db, role="runner") as presence`.

    `role`: worker, solo, runner or guest. `queues`, `kinds`, `concurrency`: what it serves, for people and for the
    search of work that nobody serves; `versions`: of kinds that it runs in others than 0; `cron`:
        entries that its app declares.
    """

    def __init__(
        self, db: Database, *, role: str, label: str | None = None, queues: Sequence[str] = (), kinds: Sequence[str]
        = (),
        concurrency: int = 1, settings: Settings | None = None,
        versions: Mapping[str, Sequence[int]] | None = None, cron: Sequence[str] = (),
    ) -> None:  # fmt: skip
        settings = settings or load_settings()
        self.worker_id = new_worker_id()
        self.epoch = 0
        self.label = label or f"{role}-{host()}-{os.getpid()}"
        self.ttl_s = settings.ttl_s
        self.heartbeat = Heartbeat(db.dsn, self.worker_id, settings.beat_s, settings.ttl_s, settings.gone_s)
        self._db = db
        self._role = role
        self._serves = json.dumps(
            {
                "queues": list(queues),
                "kinds": list(kinds),
                "concurrency": concurrency,
                "versions": dict(versions or {}),
                **({"cron": list(cron)} if cron else {}),
            }
        )

    def start(self) -> Self:
        """Register and begin to beat. Raises DatabaseUnavailable and its neighbours."""
        sent = monotonic()
        self._db.run(
            workers.register_worker(
                self.worker_id, label=self.label, host=host(), pid=os.getpid(), process=process_identity(),
                version=package_version(), role=self._role, ttl_s=self.ttl_s, serves=self._serves,
            )
        )  # fmt: skip
        self.heartbeat.start(sent)
        return self

    def stop(self) -> None:
        """Stop beating and say goodbye; leases left behind are then reclaimed at once."""
        self.heartbeat.stop()
        try:
            self._db.run(workers.retire_worker(self.worker_id, "stopped"))
        except AgentOSError as exc:
            log.debug("could not say goodbye; the TTL will", error=str(exc).splitlines()[0])

    def trusted(self) -> bool:
        """Whether a side effect may be started now."""
        return self.heartbeat.trusted

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


_guests: dict[tuple[int, str], Presence] = {}
_guests_lock = threading.Lock()


def _unlock_after_fork() -> None:
    global _guests_lock  # noqa: PLW0603  a thread of the parent may have held the old one while it forked
    _guests_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_after_fork)


def guest(db: Database) -> int:
    """The worker id under which this process calls ledger and cache without a lease; registered at the first call.

    It beats, so that others can tell a call that is being executed from one whose process died.
    """
    key = (os.getpid(), db.dsn)
    with _guests_lock:
        presence = _guests.get(key)
        if presence is None or presence.heartbeat.dead:  # only late: its row is still good, and its thread goes on
            presence = _guests[key] = Presence(db, role="guest").start()
        return presence.worker_id


@atexit.register
def forget_guests() -> None:
    """Say goodbye for all guests of this process (also for tests whose database goes away)."""
    with _guests_lock:
        mine = [key for key in _guests if key[0] == os.getpid()]
        leaving = [_guests.pop(key) for key in mine]
    for presence in leaving:
        presence.stop()
