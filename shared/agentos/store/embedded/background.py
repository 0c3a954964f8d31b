"""Processes that outlive the one that starts them: the server and its watchdog."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentos.store.embedded import locks
from agentos.store.embedded.failures import failed
from agentos.store.embedded.owner import Owner
from agentos.store.embedded.paths import Paths

WATCHDOG = str(Path(__file__).resolve().parent)  # its __main__


def detach(
    owner: Owner, argv: Sequence[str], *, log: Path, keep: Sequence[int], env: Mapping[str, str] | None = None
) -> None:
    """Run `argv` in the background as nobody's child, with the descriptors `keep` and its output in `log`.

    Raises EmbeddedFailed: if there is no shell to do so.
    """
    with log.open("wb") as output:
        done = owner.run(["/bin/sh", "-c", '"$@" </dev/null &', "sh", *argv], output=output, keep=keep, env=env)
    if done.returncode != 0:
        raise failed(f"{argv[0]} could not be started (status {done.returncode}), see {log}")


def ensure_watchdog(paths: Paths, linger_s: float, server: int) -> None:
    """Start a watchdog unless there is one. Call it under the start lock. `server`: the pid of the postmaster: told,
    because the data may be removed before the watchdog's interpreter has started and could read it; 0: not known.
    """
    lock = locks.try_acquire(paths.watchdog_lock)
    if lock is None:
        return
    argv = [sys.executable, "-S", WATCHDOG, str(paths.data_dir), str(linger_s), str(lock), str(server)]
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    try:
        me = Owner(os.geteuid(), os.getegid(), switch=False)
        detach(me, argv, log=paths.watchdog_log, keep=[lock], env=env)
    finally:
        locks.release(lock)
