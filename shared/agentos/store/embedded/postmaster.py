"""The running server: found, started and stopped.

Every process of the server inherits the lock on `server.lock`. So "does it live" is asked of the kernel, not of a
pid in a file that a reboot, a reused pid or a zombie makes a lie.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agentos.store.embedded import locks
from agentos.store.embedded.background import detach
from agentos.store.embedded.failures import failed
from agentos.store.embedded.owner import Owner
from agentos.store.embedded.paths import DATABASE, PORT, ROLE, SOCKET_NAME, Paths

NAMING_S = 5.0  # until a server that has just been started has written its pid
FAST_STOP_S = 60.0
IMMEDIATE_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What the server says about itself in postmaster.pid."""

    pid: int
    socket_dir: Path
    ready: bool


def dsn(paths: Paths) -> str:
    """The DSN of the server; psycopg, asyncpg and psql take it."""
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(paths.socket_dir))}&port={PORT}"


def running(paths: Paths) -> Postmaster | None:
    """The server if it takes connections now, else None."""
    if not locks.is_held(paths.server_lock):
        return None
    found = read(paths.cluster)
    return found if found and found.ready and _answers(found.socket_dir) else None


def read(cluster: Path) -> Postmaster | None:
    """What postmaster.pid says, true or not; None if there is no complete one."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), Path(lines[4]), len(lines) > 7 and lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def launch(paths: Paths, owner: Owner, binaries: Path, lock: int) -> None:
    """Start the server without waiting for it; it takes over `lock`, the descriptor of the lock on server.lock."""
    _remove_stale_pid(paths.cluster)
    detach(owner, [str(binaries / "postgres"), "-D", str(paths.cluster)], log=paths.start_log, keep=[lock])


def await_ready(paths: Paths, timeout_s: float) -> None:
    """Wait until the server that was just launched takes connections.

    Raises EmbeddedFailed: if it ends instead, or needs more than `timeout_s` seconds.
    """
    if settle(paths, timeout_s) is None:
        raise failed(f"the embedded server in {paths.data_dir} ended while it started", detail=_last_words(paths))


def settle(paths: Paths, timeout_s: float) -> Postmaster | None:
    """The server once it takes connections, or None once its last process is gone.

    Raises EmbeddedFailed: if neither happens within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while (found := running(paths)) is None and locks.is_held(paths.server_lock):
        if time.monotonic() > deadline:
            raise failed(
                f"the embedded server in {paths.data_dir} took no connection within {timeout_s:g} s",
                hint=f"it recovers, or queries of a killed server still run; see {paths.cluster / 'log'}, try again",
                detail=_last_words(paths),
            )
        time.sleep(0.005)
    return found


def shut_down(paths: Paths) -> None:
    """Stop the server (fast; immediately if that takes a minute) and wait until its last process is gone.

    Raises EmbeddedFailed: if it does not end.
    """
    wait_until(lambda: read(paths.cluster) is not None or not locks.is_held(paths.server_lock), NAMING_S)
    for sent, seconds in ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, IMMEDIATE_STOP_S)):
        if found := read(paths.cluster):
            send(found.pid, sent, paths.cluster)
        if wait_until(lambda: not locks.is_held(paths.server_lock), seconds):
            _remove_socket_dir(paths)
            return
    raise failed(f"the embedded server in {paths.data_dir} does not stop", detail=_last_words(paths))


def send(pid: int, number: int, cluster: Path) -> None:
    """Send signal `number` to `pid` if that is the server of `cluster`."""
    if _is_server(pid, cluster):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it has just ended


def is_unreachable(paths: Paths) -> bool:
    """Whether the server runs and somebody removed its socket."""
    found = read(paths.cluster)
    return found is not None and found.ready and not (found.socket_dir / SOCKET_NAME).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `condition` came true within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _answers(socket_dir: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(socket_dir / SOCKET_NAME))
        except (BlockingIOError, TimeoutError):
            return True  # it listens, and is busy
        except OSError:
            return False
    return True


def _remove_stale_pid(cluster: Path) -> None:
    """Postgres refuses to start when the pid in postmaster.pid lives, even if it is now somebody else's process."""
    found = read(cluster)
    if found is None or not _is_server(found.pid, cluster):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _remove_socket_dir(paths: Paths) -> None:
    if paths.socket_dir.parent != paths.data_dir:
        shutil.rmtree(paths.socket_dir, ignore_errors=True)


def _is_server(pid: int, cluster: Path) -> bool:
    """Whether `pid` is a postgres process that serves `cluster`; a zombie is none."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        if os.path.exists("/proc/self"):
            return False
        ps = ["/bin/ps", "-o", "command=", "-p", str(pid)]
        shown = subprocess.run(ps, capture_output=True, text=True, check=False)
        return "postgres" in shown.stdout and str(cluster) in shown.stdout
    return Path(command[0]).name == "postgres" and str(cluster) in command


def _last_words(paths: Paths) -> str:
    logs = sorted((paths.cluster / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    text = ""
    for path in [paths.start_log, *logs[-1:]]:
        if path.exists():
            text += path.read_text(errors="replace")[-4000:]
    return "\n".join(text.strip().splitlines()[-8:])
