"""A function in a process of its own: a real one, that a real `kill -9` ends."""

import asyncio
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

RAISED = 70
"""Exit code of a child whose function raised; the traceback is on its stderr."""
LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Ended:
    """How the child ended (`code`: negative is the signal), and the lines it told."""

    pid: int
    code: int
    told: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """Whether `kill -9` ended it."""
        return self.code == -signal.SIGKILL


def in_child(function: Callable[[Callable[[str], None]], None], *, timeout_s: float) -> Ended:
    """Run `function(tell)` in a forked child and wait for its end; `tell(line)` reaches the parent even if it dies.

    A fork and not a new interpreter, so that handlers defined inside a test are there. Nothing of the parent's
    connections is used: pools know the process that made them, and the child leaves by `os._exit`.
    Raises TimeoutError: if it took longer than `timeout_s`; it is killed then.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become(function, writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        code = _wait(pid, timeout_s)
        return Ended(pid, code, tuple(line.rstrip("\n") for line in lines))


def _become(function: Callable[[Callable[[str], None]], None], writer: int) -> None:
    gc.freeze()  # what the parent had must not be finalized here: a connection would say goodbye on a shared socket
    asyncio.events._set_running_loop(None)
    code = 0
    try:
        function(lambda line: (os.write(writer, f"{line}\n".encode()), None)[1])
    except BaseException:
        traceback.print_exc()
        code = RAISED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"the child process took longer than {timeout_s:g} s")
        time.sleep(LOOK_S)
