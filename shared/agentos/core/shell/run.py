"""`run_command` and `arun_command`: one loop that reads, watches the clock, and always leaves the group dead."""

import asyncio
import contextlib
import enum
import math
import os
import selectors
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from agentos.core.shell.environment import clean_environment
from agentos.core.shell.group import CommandGroup
from agentos.core.shell.result import OUTPUT_LIMIT, CommandResult, Tail
from agentos.store.errors import InvalidInput, ToolTimeout
from agentos.store.redact import redact

GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN_S = 0.5
"""Seconds that the output may stay open after the command has ended, before what is left of its group is killed."""
_ABANDON_S = 1.0  # after that kill: only a process that left the group can still hold the output
_FIRST_POLL_S, _POLL_S = 0.0005, 0.05  # the exit of a command is looked for; its output wakes at once
_SHOWN_OUTPUT = 2000
_SHOWN_COMMAND = 200


class Stop(enum.IntEnum):
    """Why a running command has to end, the stronger the greater."""

    NO = 0
    TERMINATE = 1
    KILL = 2


def run_command(
    command: str | Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    idempotency_key: str | None = None,
    output_limit: int = OUTPUT_LIMIT,
) -> CommandResult:
    """Run `command` to its end: a str through `/bin/sh -c`, a sequence as program and arguments.

    stdin is empty. `env` is added to the clean environment (see `clean_environment`); `idempotency_key` is handed on
    as AGENTOS_IDEMPOTENCY_KEY. Of stdout and stderr the last `output_limit` bytes each are kept. `timeout_s` is in
    seconds (default: none). Whatever the command started and left in its process group is killed when it ends.

    Raises ToolTimeout: if it ran longer than `timeout_s`; its group got SIGTERM and, 2 s later, SIGKILL.
    Raises InvalidInput: if it cannot be started at all. A command that is not found is a result, exit code 127.
    """
    return _Run(command, cwd, env, timeout_s, idempotency_key, output_limit).to_the_end()


async def arun_command(
    command: str | Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    idempotency_key: str | None = None,
    output_limit: int = OUTPUT_LIMIT,
) -> CommandResult:
    """`run_command` for asyncio, in a thread of its own. Arguments, result and errors are the same.

    When the task is cancelled the group gets SIGTERM and, 2 s later or when cancelled again, SIGKILL; CancelledError
    comes out when the command has ended.
    """
    run = _Run(command, cwd, env, timeout_s, idempotency_key, output_limit)
    finished: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
    # Not the default executor: its few threads would make commands wait for each other.
    threading.Thread(target=_report, args=(run, finished), name="agentos-command", daemon=True).start()
    cancelled: asyncio.CancelledError | None = None
    while not finished.done():
        try:
            await asyncio.wait([finished])
        except asyncio.CancelledError as error:
            run.stop = Stop.TERMINATE if cancelled is None else Stop.KILL
            cancelled = error
    if cancelled is not None:
        finished.exception()
        raise cancelled
    return finished.result()


def _report(run: "_Run", finished: asyncio.Future[CommandResult]) -> None:
    result: CommandResult | None = None
    error: BaseException | None = None
    try:
        result = run.to_the_end()
    except BaseException as caught:
        error = caught
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
        finished.get_loop().call_soon_threadsafe(_settle, finished, result, error)


def _settle(finished: asyncio.Future[CommandResult], result: CommandResult | None, error: BaseException | None) -> None:
    if finished.done():
        return
    if error is not None:
        finished.set_exception(error)
    elif result is not None:
        finished.set_result(result)


class _Run:
    """One command from start to end. `stop` may be set from another thread."""

    def __init__(
        self,
        command: str | Sequence[str],
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        timeout_s: float | None,
        idempotency_key: str | None,
        output_limit: int,
    ) -> None:
        self._argv = _argv(command)
        self._cwd = None if cwd is None else os.fspath(cwd)
        self._env = clean_environment(env, idempotency_key=idempotency_key)
        self._timeout_s = timeout_s
        self._stdout, self._stderr = Tail(output_limit), Tail(output_limit)
        self.stop = Stop.NO

    def to_the_end(self) -> CommandResult:
        started = time.monotonic()
        group = CommandGroup(self._argv, cwd=self._cwd, env=self._env)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(group.stdout, selectors.EVENT_READ, self._stdout)
                selector.register(group.stderr, selectors.EVENT_READ, self._stderr)
                timed_out = self._wait(group, selector, started)
                _drain(group, selector)
        finally:
            code = group.end()
        if timed_out:
            raise self._timeout()
        return CommandResult(
            exit_code=code,
            stdout=self._stdout.text(),
            stderr=self._stderr.text(),
            duration_s=round(time.monotonic() - started, 6),
            truncated=self._stdout.dropped + self._stderr.dropped,
        )

    def _wait(self, group: CommandGroup, selector: selectors.BaseSelector, started: float) -> bool:
        """Read until the command has ended. Whether the time limit ended it."""
        deadline = math.inf if self._timeout_s is None else started + self._timeout_s
        kill_at = math.inf
        timed_out = False
        pause = _FIRST_POLL_S
        while not group.ended():
            now = time.monotonic()
            if not self.stop and now >= deadline:
                timed_out = True
                self.stop = Stop.TERMINATE
            if self.stop and kill_at == math.inf:
                kill_at = now + GRACE_S
                group.terminate()
            if self.stop is Stop.KILL or now >= kill_at:
                group.kill()
            pause = _FIRST_POLL_S if _read(selector, pause) else min(pause * 2, _POLL_S)
        return timed_out

    def _timeout(self) -> ToolTimeout:
        said = redact(self._stdout.text() + self._stderr.text())[-_SHOWN_OUTPUT:]
        return ToolTimeout(
            f"the command ran longer than {self._timeout_s:g} s and was stopped: {self._shown()}",
            hint="raise its timeout, or make it finish sooner; what it had done until then is not undone",
            detail=f"The end of its output:\n{said}" if said else "It had written nothing.",
        )

    def _shown(self) -> str:
        text = self._argv[2] if self._argv[:2] == ["/bin/sh", "-c"] else " ".join(self._argv)
        return str(redact(text, limit=_SHOWN_COMMAND))


def _argv(command: str | Sequence[str]) -> list[str]:
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if not argv or not command or not all(isinstance(part, str) for part in argv):
        raise InvalidInput(f"not a command: {command!r}", hint="pass a string, or a list of strings that is not empty")
    return argv


def _drain(group: CommandGroup, selector: selectors.BaseSelector) -> None:
    """Read what is still to come; never wait for ever for a process that keeps the output open."""
    _read_until(selector, time.monotonic() + DRAIN_S)
    group.kill()
    _read_until(selector, time.monotonic() + _ABANDON_S)


def _read_until(selector: selectors.BaseSelector, deadline: float) -> None:
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        _read(selector, left)


def _read(selector: selectors.BaseSelector, timeout_s: float) -> bool:
    """Wait at most `timeout_s` and take what has come. Whether anything had."""
    ready = selector.select(timeout_s)
    for key, _ in ready:
        stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
        chunk = os.read(stream.fileno(), 65536)
        if chunk:
            key.data.feed(chunk)
        else:
            selector.unregister(stream)
    return bool(ready)
