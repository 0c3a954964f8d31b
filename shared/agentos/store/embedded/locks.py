"""Kernel locks on files: whoever holds one is alive, for the kernel releases it whatever ends the holder.

A lock belongs to an open file description: it is never inherited over exec unless passed on purpose, and a forked
child drops its copies at once, else it would keep its dead parent alive in the eyes of everybody.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.store.embedded.failures import failed

if sys.platform != "win32":
    import fcntl

_opening = threading.Lock()  # held across a fork, so that no descriptor escapes `_held`
_held: set[int] = set()


def try_acquire(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock on `path` (made if need be), or None if somebody else holds it."""
    descriptor = _open(path, os.O_RDWR | os.O_CREAT)
    if _flock(descriptor, shared=shared):
        return descriptor
    release(descriptor)
    return None


def release(descriptor: int) -> None:
    """Close `descriptor`: its lock is free once no other process has inherited it."""
    with _opening:
        _held.discard(descriptor)
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process holds the exclusive lock on `path`."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, shared=True)
    finally:
        release(descriptor)


def acquire(path: Path, *, shared: bool = False, timeout_s: float) -> int:
    """Like `try_acquire`, waiting.

    Raises EmbeddedFailed: if others hold the lock on `path` for `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.001
    while (descriptor := try_acquire(path, shared=shared)) is None:
        if time.monotonic() > deadline:
            raise failed(
                f"{path} was locked by another process for {timeout_s:g} s",
                hint="look for an agentos process that is stopped or hangs while it starts the embedded database",
            )
        time.sleep(pause)
        pause = min(0.05, pause * 2)
    return descriptor


@contextmanager
def locked(path: Path, *, shared: bool = False, timeout_s: float) -> Iterator[None]:
    """`acquire` for the length of a block."""
    descriptor = acquire(path, shared=shared, timeout_s=timeout_s)
    try:
        yield
    finally:
        if descriptor in _held:  # not so in a child forked meanwhile
            release(descriptor)


def _open(path: Path, flags: int) -> int:
    with _opening:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        _held.add(descriptor)
        return descriptor


def _flock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget_in_child)
