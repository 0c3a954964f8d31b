"""A command as the leader of a session and process group of its own, which dies with this process (see `watcher`)."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, cast

from agentos.core.shell.watcher import WATCHER
from agentos.store.errors import InvalidInput, InvalidValue

# The command begins when the watcher knows of it, and never if this process died before. `exec` keeps the pid.
_LAUNCHER = 'read -r AGENTOS_BEGIN && exec "$@" </dev/null'


class CommandGroup:
    """A running command, its group, and the two pipes of its output. To be used by one thread."""

    def __init__(self, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str]) -> None:
        """Start `argv`. Raises InvalidInput: if the operating system cannot take the arguments or the directory."""
        self._process = _start(argv, cwd, env)
        self.stdout = cast("IO[bytes]", self._process.stdout)
        self.stderr = cast("IO[bytes]", self._process.stderr)
        begin = cast("IO[bytes]", self._process.stdin)
        try:
            WATCHER.add(self._process.pid)
            with contextlib.suppress(BrokenPipeError), begin:  # somebody killed the launcher
                begin.write(b"\n")
        except BaseException:
            self.end()
            raise

    def ended(self) -> bool:
        """Whether the command has ended. It stays uncollected, so that nobody else can be given its number."""
        if self._process.returncode is not None:
            return True
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Ask the whole group to end (SIGTERM; a stopped one is woken for it)."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the whole group now (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def end(self) -> int:
        """Leave nothing behind. The exit code of the command as a shell would give it."""
        self.kill()
        WATCHER.remove(self._process.pid)
        for stream in (self.stdout, self.stderr):
            stream.close()
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone, or all of another user (su, sudo)
            os.killpg(self._process.pid, number)


def _start(argv: Sequence[str], cwd: str | None, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    if cwd is not None and not os.path.isdir(cwd):
        raise InvalidInput(
            f"the working directory {cwd!r} is not a directory on this host", hint="create it, or fix cwd"
        )
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCHER, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
    except ValueError as error:
        raise InvalidValue(
            f"the command cannot be started: {error}", hint="no NUL, no lone surrogate, no '=' in a variable's name"
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"the command cannot be started: {error.strerror} (errno {error.errno})",
            hint="a command line and environment have a size limit: pass large data in a file",
        ) from error
