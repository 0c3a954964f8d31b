"""A running command, seen from whoever wanted it: its two pipes of output, how it ended, and the end of all of it."""

import errno
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import IO

from agentos.core.shell.keepers import KEEPER
from agentos.core.shell.limits import UNLIMITED, Limits
from agentos.store.errors import InvalidInput, InvalidValue

_GONE_S = 8.0  # the keeper itself gives up after less: what is then left belongs to another user


class CommandGroup:
    """A command under the keeper. To be used by one thread. `control` can be read when there is news."""

    def __init__(
        self, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], limits: Limits = UNLIMITED,
        pass_fds: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Start `argv`; `pass_fds` become its descriptors 3, 4, ...

        Raises InvalidInput: if the operating system cannot take the arguments or the directory.
        """
        request = _request(argv, cwd, env, limits)
        self._code: int | None = None
        self._gone = False
        self._heard = b""
        self.limit: dict[str, int | str] | None = None
        self.pid = 0
        out, theirs_out = os.pipe()
        err, theirs_err = os.pipe()
        self.stdout: IO[bytes] = os.fdopen(out, "rb", 0)
        self.stderr: IO[bytes] = os.fdopen(err, "rb", 0)
        try:
            self.control = KEEPER.open([theirs_out, theirs_err, *pass_fds])
        except BaseException:
            self.stdout.close()
            self.stderr.close()
            raise
        finally:
            os.close(theirs_out)
            os.close(theirs_err)
        try:
            self._begin(request)
        except BaseException:
            self.end()
            raise

    def _begin(self, request: bytes) -> None:
        try:
            self.control.sendall(struct.pack(">Q", len(request)) + request)
        except OSError:
            self._gone = True  # the keeper was killed; it ends like a command that was
        while not self.pid and not self._gone:
            self._listen(None)

    def ended(self) -> bool:
        """Whether the command has ended, or was ended for a limit (`limit`). What it left behind may still run."""
        self._listen(0.0)
        return self._code is not None or self._gone

    @property
    def code(self) -> int | None:
        """The exit code of the command as a shell would give it; None: it runs, or nobody can say."""
        return self._code

    def terminate(self) -> None:
        """Ask the process group to end (SIGTERM; a stopped one is woken for it)."""
        self._say(b"T")

    def kill(self) -> None:
        """End now (SIGKILL) everything that the command started, whatever session it went to."""
        self._say(b"K")

    def end(self) -> int:
        """Leave nothing behind. The exit code of the command as a shell would give it."""
        self.kill()
        deadline = time.monotonic() + _GONE_S
        while not self._gone and (left := deadline - time.monotonic()) > 0:
            self._listen(left)
        KEEPER.close(self.control)
        for stream in (self.stdout, self.stderr):
            stream.close()
        return 137 if self._code is None else self._code

    def _say(self, what: bytes) -> None:
        try:
            self.control.sendall(what)
        except OSError:
            self._listen(0.0)

    def _listen(self, timeout_s: float | None) -> None:
        """Take what the keeper said. Its end without a word is that of a killed command."""
        poll = select.poll()  # `select` cannot watch a descriptor above 1023
        poll.register(self.control, select.POLLIN)
        if self._gone or not poll.poll(None if timeout_s is None else timeout_s * 1000):
            return
        try:
            said = self.control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._gone = True
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, object]) -> None:
        match message:
            case {"refused": int(number)}:
                self._gone = True
                raise _not_started(number)
            case {"pid": int(pid)}:
                self.pid = pid
            case {"code": int(code)}:
                self._code = code
            case {"limit": dict(limit)}:
                self.limit = limit
            case {"gone": True}:
                self._gone = True
            case _:
                raise AssertionError(message)


def _request(argv: Sequence[str], cwd: str | None, env: Mapping[str, str], limits: Limits) -> bytes:
    if cwd is not None and not os.path.isdir(cwd):
        raise InvalidInput(
            f"the working directory {cwd!r} is not a directory on this host", hint="create it, or fix cwd"
        )
    try:
        for text in (*argv, *env, *env.values()):
            if b"\0" in os.fsencode(text):
                raise ValueError("embedded null byte")
        if any("=" in name or not name for name in env):
            raise ValueError("illegal name of an environment variable")
    except ValueError as error:
        raise InvalidValue(
            f"the command cannot be started: {error}", hint="no NUL, no lone surrogate, no '=' in a variable's name"
        ) from None
    # Ours, as of any child: the keeper that starts it stands elsewhere.
    asked = {"argv": list(argv), "cwd": cwd or os.getcwd(), "env": dict(env), "limits": limits.as_request()}
    return json.dumps(asked).encode()


def _not_started(number: int) -> InvalidInput:
    hint = "look at the working directory and the limits of this host"
    if number == errno.E2BIG:
        hint = "a command line and environment have a size limit: pass large data in a file"
    return InvalidInput(f"the command cannot be started: {os.strerror(number)} (errno {number})", hint=hint)
