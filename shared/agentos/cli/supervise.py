"""Child processes in one terminal: their output with a prefix, and one end for all of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

Say = Callable[[str, str], None]

LOOK_S = 0.1
AT_ONCE_S = 3.0
RESTART_S = 1.0


@dataclass(slots=True)
class Child:
    """A process to keep running. `module` is run as `python -m module`."""

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None = None
    restart_at: float = 0.0

    def start(self, say: Say) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches us alone and we decide how it stops."""
        command = [sys.executable, "-m", self.module, *self.arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentos.cli.child", str(os.getpid()), *command], env=dict(self.environment),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._pump, args=(self.process, say), daemon=True).start()

    def _pump(self, process: subprocess.Popen[str], say: Say) -> None:
        for line in process.stdout or ():
            say(self.name, line.rstrip("\n"))

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self.process is None else self.process.poll()

    def tell(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to it, or to it and whatever it started."""
        if self.process is None or (self.process.poll() is not None and not group):
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number) if group else self.process.send_signal(number)


@dataclass(slots=True)
class Supervisor:
    """Runs children until a signal, or until one of them says by its exit code that it cannot go on.

    A child that was killed by a signal is started again: that is what a development pool is for.
    """

    children: Sequence[Child]
    say: Say
    grace_s: float
    _signals: int = 0
    _woken: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        """Start all and stay. Returns 0 after a signal, else the exit code of the child that ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for child in self.children:
            child.start(self.say)
        code = 0
        try:
            while not self._signals and not (code := self._look()):
                self._woken.wait(LOOK_S)
        finally:
            self._stop_all()
        return code

    def _on_signal(self, *_: object) -> None:
        self._signals += 1
        self._woken.set()

    def _look(self) -> int:
        """Restart what was killed. The exit code of a child that ended by itself."""
        for child in self.children:
            code = child.ended()
            if code is None:
                continue
            if code >= 0:
                self.say(child.name, f"ended with exit code {code}")
                return code or 1
            if not child.restart_at:
                self.say(child.name, f"killed by {signal.Signals(-code).name}; starting it again")
                child.restart_at = time.monotonic() + RESTART_S
            elif time.monotonic() >= child.restart_at:
                child.restart_at = 0.0
                child.start(self.say)
        return 0

    def _stop_all(self) -> None:
        """Ask, ask again at a second signal, and end what is left when the time is over."""
        told, until = self._signals, time.monotonic() + self.grace_s
        self._tell_all(signal.SIGTERM)
        while any(child.process and child.ended() is None for child in self.children) and time.monotonic() < until:
            time.sleep(LOOK_S / 2)
            if self._signals > told:
                told, until = self._signals, min(until, time.monotonic() + AT_ONCE_S)
                self._tell_all(signal.SIGTERM)
        for child in self.children:
            child.tell(signal.SIGKILL, group=True)

    def _tell_all(self, number: signal.Signals) -> None:
        for child in self.children:
            child.tell(number)
