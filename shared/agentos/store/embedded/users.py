"""The living users of an embedded server: each process holds a lock on a file of its own."""

import os
import secrets
import threading
from pathlib import Path

from agentos.store.embedded import locks

_mutex = threading.Lock()  # held across a fork
_registered: dict[Path, tuple[int, Path]] = {}


def register(users: Path) -> None:
    """Make this process a living user until it ends or calls `unregister`; again after a fork."""
    with _mutex:
        if users in _registered:
            descriptor, path = _registered[users]
            if _is_at(descriptor, path):
                return
            locks.release(descriptor)  # somebody removed the folder
        _registered[users] = _locked_file(users)


def unregister(users: Path) -> None:
    """This process is no user any more."""
    with _mutex:
        descriptor, path = _registered.pop(users, (None, None))
        if descriptor is not None and path is not None:
            path.unlink(missing_ok=True)
            locks.release(descriptor)


def living(users: Path) -> tuple[int, ...]:
    """The pids of the living users; the files of dead ones are removed."""
    try:
        names = sorted(os.listdir(users))
    except FileNotFoundError:
        return ()
    return tuple(int(name.partition("-")[0]) for name in names if _lives(users / name))


def _lives(path: Path) -> bool:
    try:
        if locks.is_held(path):
            return True
        path.unlink(missing_ok=True)
    except PermissionError:  # another user's process (root's): it cannot be asked, so it counts
        return path.exists()
    return False


def _locked_file(users: Path) -> tuple[int, Path]:
    while True:
        path = users / f"{os.getpid()}-{secrets.token_hex(4)}"
        descriptor = locks.try_acquire(path)
        if descriptor is None:
            continue
        if _is_at(descriptor, path):
            return descriptor, path
        locks.release(descriptor)  # `living` removed it between open and lock


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _forget_in_child() -> None:
    _registered.clear()
    _mutex.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_forget_in_child)
