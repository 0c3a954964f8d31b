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
from dataclasses import replace
from typing import IO

from agentos.core.shell.environment import clean_environment
from agentos.core.shell.group import CommandGroup
from agentos.core.shell.options import ShellOptions
from agentos.core.shell.result import CommandResult, Tail
from agentos.core.shell.sandbox import Sandbox
from agentos.store.errors import InvalidInput, ToolLimitExceeded, ToolTimeout
from agentos.store.redact import redact

GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN_S = 0.5
"""Seconds that the output may stay open after the command has ended, before what is left of its group is killed."""
_ABANDON_S = 1.0  # after that kill: only a process that left the group can still hold the output
_POLL_S = 0.1  # how soon a request to stop is seen; output and the end wake at once
_SHOWN_OUTPUT = 2000
_SHOWN_COMMAND = 200


class Stop(enum.IntEnum):
    """Why a running command has to end, the stronger the greater."""

    NO = 0
    TERMINATE = 1
    KILL = 2


PLAIN = ShellOptions()
"""No limits, no sandbox."""


def run_command(
    command: str | Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    idempotency_key: str | None = None,
    output_limit: int | None = None,
    options: ShellOptions = PLAIN,
) -> CommandResult:
    """Run `command` to its end: a str through `/bin/sh -c`, a sequence as program and arguments.

    stdin is empty. `env` is added to the clean environment (see `clean_environment`); `idempotency_key` is handed on
    as AGENTOS_IDEMPOTENCY_KEY. Of stdout and stderr the last `output_limit` bytes each are kept (default: 65536).
    `timeout_s` is in seconds (default: none). `options`: limits and sandbox; default: none. Whatever the command
    started and left is killed when it ends; on Linux also what went to a session of its own.

    Raises ToolTimeout: if it ran longer than `timeout_s`; its group got SIGTERM and, 2 s later, SIGKILL.
    Raises ToolLimitExceeded: if all its processes together passed a limit; they were killed.
    Raises SandboxUnavailable: if a sandbox was asked for and cannot be had; nothing was run.
    Raises InvalidInput: if it cannot be started at all. A command that is not found is a result, exit code 127.
    """
    return _Run(command, cwd, env, idempotency_key, _asked(options, timeout_s, output_limit)).to_the_end()


async def arun_command(
    command: str | Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    idempotency_key: str | None = None,
    output_limit: int | None = None,
    options: ShellOptions = PLAIN,
) -> CommandResult:
    """`run_command` for asyncio, in a thread of its own. Arguments, result and errors are the same.

    When the task is cancelled the group gets SIGTERM and, 2 s later or when cancelled again, SIGKILL; CancelledError
    comes out when the command has ended.
    """
    run = _Run(command, cwd, env, idempotency_key, _asked(options, timeout_s, output_limit))
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
        idempotency_key: str | None,
        options: ShellOptions,
    ) -> None:
        self._argv = _argv(command)
        self._cwd = None if cwd is None else os.fspath(cwd)
        self._env = clean_environment(env, idempotency_key=idempotency_key, allowed=options.env)
        self._options = options
        self._timeout_s = options.timeout_s
        self._stdout, self._stderr = Tail(options.output_limit), Tail(options.output_limit)
        self.stop = Stop.NO

    def to_the_end(self) -> CommandResult:
        started = time.monotonic()
        group = CommandGroup(self._walled(), cwd=self._cwd, env=self._env, limits=self._options.limits)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(group.control, selectors.EVENT_READ, None)
                selector.register(group.stdout, selectors.EVENT_READ, self._stdout)
                selector.register(group.stderr, selectors.EVENT_READ, self._stderr)
                timed_out = self._wait(group, selector, started)
                selector.unregister(group.control)
                _drain(group, selector)
        finally:
            code = group.end()
        if timed_out:
            raise self._timeout()
        if group.limit is not None:
            raise self._over(group.limit)
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
            _read(selector, max(0.0, min(_POLL_S, deadline - now, kill_at - now)))
        return timed_out

    def _walled(self) -> list[str]:
        if self._options.sandbox == "none":
            return self._argv
        walls = Sandbox(
            workspace=self._cwd or os.getcwd(), network=self._options.network, readable=self._options.readable,
            hidden=self._options.hidden,
        )  # fmt: skip
        return walls.argv(["/bin/sh", "-c", 'exec "$@"', "sh", *self._argv])  # which gives 126 and 127

    def _over(self, limit: dict[str, int | str]) -> ToolLimitExceeded:
        if limit["name"] == "memory":
            passed = f"{self._options.limits.memory_mb:g} MiB of memory ({int(limit['found']) / 2**20:.0f} MiB)"
        else:
            passed = f"{self._options.limits.processes} processes ({limit['found']})"
        return ToolLimitExceeded(
            f"the command used more than {passed} and was killed: {self._shown()}",
            hint="raise the limit (an argument of the call, or AGENTOS_SHELL_MEMORY_MB, AGENTOS_SHELL_PROCESSES), or "
            "make it use less; what it had done until then is not undone",
            detail=self._said(),
        )

    def _said(self) -> str:
        said = redact(self._stdout.text() + self._stderr.text())[-_SHOWN_OUTPUT:]
        return f"The end of its output:\n{said}" if said else "It had written nothing."

    def _timeout(self) -> ToolTimeout:
        return ToolTimeout(
            f"the command ran longer than {self._timeout_s:g} s and was stopped: {self._shown()}",
            hint="raise its timeout, or make it finish sooner; what it had done until then is not undone",
            detail=self._said(),
        )

    def _shown(self) -> str:
        text = self._argv[2] if self._argv[:2] == ["/bin/sh", "-c"] else " ".join(self._argv)
        return str(redact(text, limit=_SHOWN_COMMAND))


def _asked(options: ShellOptions, timeout_s: float | None, output_limit: int | None) -> ShellOptions:
    return replace(
        options,
        timeout_s=options.timeout_s if timeout_s is None else timeout_s,
        output_limit=options.output_limit if output_limit is None else output_limit,
    )


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
        if key.data is None:
            continue  # news from the keeper, which `ended` takes
        stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
        chunk = os.read(stream.fileno(), 65536)
        if chunk:
            key.data.feed(chunk)
        else:
            selector.unregister(stream)
    return bool(ready)
