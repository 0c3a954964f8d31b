"""Real processes for tests: started, listened to, signalled, and gone at the end of the test."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.nursery import Born

T = TypeVar("T")

PATIENCE_S = 60.0
TTL_S, SWEEP_S = 1.5, 0.1
QUICK = ("--ttl", str(TTL_S), "--sweep", str(SWEEP_S))


def until(look: Callable[[], T], *, timeout_s: float = PATIENCE_S, every_s: float = 0.02, what: str = "") -> T:
    """What `look` returns as soon as that is true; looks 50 times a second."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {timeout_s} s: {what or look}"
        time.sleep(every_s)
    return found


def until_counted(count: Callable[[], int], goal: int, *, every_s: float = 0.1) -> None:
    """Wait until `count` is the goal, however long that takes; fails when it has not changed for `PATIENCE_S`."""
    counted, end = count(), time.monotonic() + PATIENCE_S
    while counted != goal:
        time.sleep(every_s)
        if (now := count()) != counted:
            counted, end = now, time.monotonic() + PATIENCE_S
        assert time.monotonic() < end, f"{counted} of {goal}, and no more within {PATIENCE_S} s"


class Daemon:
    """A process of ours, in a session of its own. `lines` is everything it said on stderr and stdout so far."""

    def __init__(self, module: str, *args: str, env: dict[str, str] | None = None) -> None:
        environment = {**os.environ, "AGENTOS_LOG_FORMAT": "json", **(env or {})}
        self.process: Born | subprocess.Popen[str]
        if module == "agentos.cli":  # it starts processes itself, as nothing but its own start can show
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=environment, start_new_session=True,
            )  # fmt: skip
        else:
            self.process = Born(module, *args, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            self.lines.extend(iter(said.readline, ""))

    def said(self, text: str) -> str | None:
        """The first line with `text`, if there is one."""
        return next((line for line in list(self.lines) if text in line), None)

    def until_said(self, text: str) -> str:
        """Wait for a line with `text`; fails when the process ends without it."""

        def look() -> str | None:
            gone = self.process.poll() is not None
            if gone:
                self._reader.join(PATIENCE_S)
            line = self.said(text)
            assert line or not gone, f"ended with {self.process.returncode} before {text!r}: {self.lines[-20:]}"
            return line

        return until(look, what=f"{text!r} in {self.lines[-20:]}") or ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and collect it."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(PATIENCE_S)
        return code

    def close(self) -> None:
        """Nothing of it outlives the test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)


def coordinator(dsn: str, *args: str) -> Daemon:
    """A quick coordinator on a database."""
    return Daemon("agentos.coordinator", *QUICK, *args, env={"AGENTOS_DSN": dsn})


def close_all(daemons: Sequence[Daemon]) -> None:
    """Kill what is left."""
    for daemon in daemons:
        daemon.close()
