"""The keeper of this process: started with its first command, replaced if somebody kills it. See `keeper`."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = str(Path(__file__).with_name("keeper.py"))


class Keeper:
    """The door of the keeper, and the control sockets of what runs. Safe for threads and for `fork`: the copy has none,
    or the commands would outlive their owner with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._controls: set[socket.socket] = set()
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forget)

    def open(self, fds: Sequence[int]) -> socket.socket:
        """Have a command kept that gets `fds`: stdout, stderr, and more. Returns its control socket; `close` it."""
        with self._lock:
            ours, theirs = socket.socketpair()
            self._controls.add(ours)
            with theirs:
                self._send([theirs.fileno(), *fds])
            return ours

    def close(self, control: socket.socket) -> None:
        """What runs under it is killed, if it still does."""
        with self._lock:
            self._controls.discard(control)
            control.close()

    def _send(self, fds: Sequence[int]) -> None:
        if self._door is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(self._door, [b"+"], fds)
                return
            self._collect()
        self._start()
        assert self._door is not None  # noqa: S101
        socket.send_fds(self._door, [b"+"], fds)

    def _start(self) -> None:
        self._door, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", _PROGRAM],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )

    def _collect(self) -> None:
        """It was killed: somebody ended it by hand, or the kernel did for memory. What it forked goes on."""
        if self._door is not None:
            self._door.close()
        if self._process is not None:
            self._process.wait()
        self._door = self._process = None

    def _forget(self) -> None:
        """In a forked copy of this process, which must not keep the commands of its parent alive."""
        for each in (self._door, *self._controls):
            if each is not None:
                each.close()
        if self._process is not None:
            self._process.returncode = 0  # not a child of the copy: nothing to wait for, nothing to warn of
        self._door = self._process = None
        self._controls.clear()
        self._lock.release()


KEEPER = Keeper()
"""The one of this process."""
