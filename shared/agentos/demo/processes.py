"""The processes that the conductor starts: real ones, each in a session of its own, none of which outlives the demo."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentos.core.shell.watcher import WATCHER

GOODBYE_S = 8.0
"""Seconds for an orderly end; what is left then is killed."""


class Process:
    """`python -m module args`, its output in a file. Its children belong to its group and end with it."""

    def __init__(self, name: str, module: str, args: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *args], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=folder, env=dict(env), start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        WATCHER.add(self.pid)  # a conductor that is itself killed with SIGKILL leaves nobody behind

    def ended(self) -> bool:
        """Whether it has ended. It stays uncollected, so that its number is nobody else's until `end`."""
        if self._process.returncode is not None:
            return True
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def freeze(self) -> None:
        """SIGSTOP: from now on it does nothing until `thaw`. Only this process, not its children."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, for this process alone."""
        os.kill(self.pid, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """SIGTERM: it drains."""
        if not self.ended():
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """Nothing of it or its children is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; macOS: only a zombie is left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        WATCHER.remove(self.pid)

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])


class Cast:
    """All of them: `with Cast(...) as cast`. At the end of the block everybody is gone, however it ended."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self.everybody: list[Process] = []

    def start(self, name: str, module: str, *args: str) -> Process:
        """Start one more."""
        process = Process(name, module, args, folder=self._folder, env=self._env)
        self.everybody.append(process)
        return process

    def __enter__(self) -> "Cast":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in self.everybody:
                process.ask_to_end()
            deadline = time.monotonic() + GOODBYE_S
            while time.monotonic() < deadline and not all(process.ended() for process in self.everybody):
                time.sleep(0.05)
        finally:
            for process in self.everybody:
                process.end()
