"""Which process this is, told so that another process of the same machine can prove it gone."""

import functools
import os
import secrets
import socket
import time

import psutil


def new_worker_id() -> int:
    """A random positive 63-bit id. Host names and pids come back after a restart; this does not."""
    return secrets.randbits(62) + 1


@functools.cache
def host() -> str:
    """This machine's name, as stored with workers and checkpoints."""
    return socket.gethostname()


def _namespace() -> str:
    """Which set of pids: two containers of one kernel both have a pid 7."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return host()


def _identity(pid: int) -> str:
    return f"{psutil.boot_time():.0f}|{_namespace()}|{pid}|{psutil.Process(pid).create_time():.2f}"


def process_identity() -> str:
    """Boot, pid namespace, pid and start time of this process."""
    return _identity(os.getpid())


def process_is_gone(process: str, pid: int) -> bool:
    """True only when `process` (as `process_identity` wrote it) certainly does not run any more.

    Another boot of this machine, another pid namespace, or a process of another user that cannot be read: not certain.
    """
    parts = process.split("|")
    if len(parts) != 4 or parts[0] != f"{psutil.boot_time():.0f}" or parts[1] != _namespace():
        return False
    try:
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return zombie or _identity(pid) != process
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


monotonic = time.monotonic
"""Seconds on a clock that other processes' clock changes do not move; never compared with the database's."""
