"""A tool: something with a side effect, its name, and what is known about repeating it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentos.core.flows.tools import ToolCall, ToolPolicy
from agentos.core.shell import arun_command, run_command
from agentos.store.calls.ledger import OnDoubt
from agentos.store.errors import InvalidArguments

ToolFunction = Callable[[ToolCall, Any], Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """`run(call, arguments)` does it, sync or async; `policy` says what happens when it is in doubt or its work is
    gone.

    The default policy is the safe one: a call that was begun and never finished stops the task.
    """

    name: str
    run: ToolFunction
    policy: ToolPolicy

    def treated(self, on_doubt: OnDoubt | None, probe: Callable[..., Any] | None) -> "Tool":
        """The same with another treatment of doubt. Raises InvalidInput: if it makes no sense."""
        if on_doubt is None and probe is None:
            return self
        policy = replace(
            self.policy, on_doubt=on_doubt or "probe", probe=probe or self.policy.probe,
            safe_to_repeat=self.policy.repeats_safely if on_doubt is None else self.policy.safe_to_repeat,
        )  # fmt: skip
        return Tool(self.name, self.run, policy)


def _command(arguments: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(arguments, str | list):
        return arguments, {}
    if isinstance(arguments, Mapping) and "command" in arguments:
        options = {k: arguments[k] for k in ("cwd", "timeout_s", "env") if arguments.get(k) is not None}
        return arguments["command"], options
    raise InvalidArguments(
        f"bash takes a command or {{'command': ..., 'cwd', 'timeout_s', 'env'}}, not {arguments!r:.200}",
        hint='ctx.tool("bash", "echo hello")',
    )


def _run_bash(call: ToolCall, arguments: Any) -> dict[str, Any]:
    command, options = _command(arguments)
    return run_command(command, idempotency_key=call.idempotency_key, **options).as_dict()


async def _arun_bash(call: ToolCall, arguments: Any) -> dict[str, Any]:
    command, options = _command(arguments)
    result = await arun_command(command, idempotency_key=call.idempotency_key, **options)
    return result.as_dict()


bash = Tool("bash", _run_bash, ToolPolicy())
"""Runs a command through /bin/sh; blocking, for flows that are driven."""

abash = Tool("bash", _arun_bash, ToolPolicy())
"""The same, awaited: cancelling the handler ends the command and everything it started."""


def tool_function(function: Callable[..., Any]) -> ToolFunction:
    """A user's function as (call, arguments): one that takes no `call` first gets the arguments alone."""
    parameters = list(inspect.signature(function).parameters)
    if parameters[:1] == ["call"]:
        return function
    if inspect.iscoroutinefunction(function):

        async def run_async(_call: ToolCall, arguments: Any) -> Any:
            return await function(arguments)

        return run_async
    return lambda _call, arguments: function(arguments)
