"""A process that has imported what workers and coordinators need and forks for each of them: real processes, to be
killed as any other, without the second of processor that the imports take.

`python -m tests.nursery FD` reads a request from the socket FD, with the ends of two pipes: where the process is to
write, and where its exit code goes. What runs in a fork begins as `python -m MODULE` does, and ends as it does.
"""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
REQUEST_BYTES = 1 << 17


class Born:
    """A process of the nursery, with the face of `subprocess.Popen`."""

    def __init__(self, module: str, *args: str, env: dict[str, str]) -> None:
        asked = json.dumps({"module": module, "args": args, "env": env, "folder": str(Path.cwd())})
        read, write = os.pipe()
        self._ended, ended = os.pipe()
        try:
            with _turn:
                _, asking = _nursery()
                socket.send_fds(asking, [asked.encode()], [write, ended])
                self.pid = int(asking.recv(32))
        finally:
            os.close(write)
            os.close(ended)
        self.returncode: int | None = None
        self.stdout: IO[str] = open(read, encoding="utf-8")  # noqa: SIM115  closed by who reads it to its end
        os.set_blocking(self._ended, False)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                told = os.read(self._ended, 16)
            except BlockingIOError:
                return None
            assert told, "the nursery has ended"
            self.returncode = int(told)
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            if self.returncode is None:
                selector.register(self._ended, selectors.EVENT_READ)
            while (code := self.poll()) is None:
                if (left := end - time.monotonic()) <= 0:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
                selector.select(left)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, which is not told yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


_turn = threading.Lock()


@cache
def _nursery() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """The one of this test process; it ends when the socket is closed, at the latest with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTOS_", "PYTHONPATH"))}
    with theirs:
        process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()], start_new_session=True)
    return process, ours


def serve(asking: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, tell the end of each fork. In a fork: returns what to run; else None, once nobody asks."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(asking, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    _tell_ends(running)
                    continue
                request, fds, *_ = socket.recv_fds(asking, REQUEST_BYTES, 2)
                if not request:
                    return None
                out, ended = fds
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    _become(out)
                    for fd in (asking.detach(), woken, wake, out, ended, *running.values()):
                        os.close(fd)
                    return dict(json.loads(request))
                running[pid] = ended
                os.close(out)
                asking.send(str(pid).encode())


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        ended = running.pop(pid)
        os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(ended)


def _become(out: int) -> None:
    """What `Popen(start_new_session=True)` and the start of an interpreter make of a process."""
    os.setsid()
    for number in (1, 2):
        os.dup2(out, number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def run(request: dict[str, Any], libraries: list[str]) -> None:
    """`python -m module args` in its folder, with its environment."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    added = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [request["folder"], *added, *libraries]
    sys.argv[:] = [request["module"], *request["args"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, serve; in a fork, run."""
    import agentos.coordinator.coordinator  # noqa: PLC0415  the tests import this module for `Born` alone
    import agentos.coordinator.once  # noqa: PLC0415
    import agentos.worker.command  # noqa: F401, PLC0415

    gc.freeze()  # a fork has enough to do at its end
    libraries = sys.path[1:]  # the first is the folder that this was started in
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        run(asked, libraries)


if __name__ == "__main__":
    main()
