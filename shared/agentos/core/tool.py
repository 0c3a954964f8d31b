"""A tool: something with a side effect, its name, and what is known about repeating it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentos.core.flows.tools import ToolCall, ToolPolicy
from agentos.core.shell import OPTION_NAMES, ShellOptions, arun_command, run_command, shell_options
from agentos.store.calls.ledger import OnDoubt
from agentos.store.errors import InvalidArguments
from agentos.store.settings import load_settings

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


_PLACE_NAMES = ("cwd", "env")


def _command(arguments: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(arguments, str | list):
        return arguments, {}
    if isinstance(arguments, Mapping) and "command" in arguments:
        known = {"command", *_PLACE_NAMES, *OPTION_NAMES}
        if unknown := sorted(set(arguments) - known):
            raise InvalidArguments(
                f"bash does not know {', '.join(map(repr, unknown))}", hint=f"it takes {', '.join(sorted(known))}"
            )
        return arguments["command"], dict(arguments)
    raise InvalidArguments(
        f"bash takes a command or {{'command': ..., {', '.join(map(repr, (*_PLACE_NAMES, *OPTION_NAMES)))}}}, not "
        f"{arguments!r:.200}",
        hint='ctx.tool("bash", "echo hello")',
    )


def _how(call: ToolCall, arguments: Any, declared: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    command, asked = _command(arguments)
    options = shell_options(load_settings()).with_asked(declared).with_asked(asked)
    place = {name: asked[name] for name in _PLACE_NAMES if asked.get(name) is not None}
    return command, {"idempotency_key": call.idempotency_key, "options": options, **place}


def _run_bash(call: ToolCall, arguments: Any) -> dict[str, Any]:
    command, how = _how(call, arguments, {})
    return run_command(command, **how).as_dict()


async def _arun_bash(call: ToolCall, arguments: Any) -> dict[str, Any]:
    command, how = _how(call, arguments, {})
    return (await arun_command(command, **how)).as_dict()


bash = Tool("bash", _run_bash, ToolPolicy())
"""Runs a command through /bin/sh; blocking, for flows that are driven."""

abash = Tool("bash", _arun_bash, ToolPolicy())
"""The same, awaited: cancelling the handler ends the command and everything it started."""


def shell_tool(name: str, policy: ToolPolicy, **declared: Any) -> Tool:
    """A tool that runs commands as `bash` does, with limits and a sandbox of its own: any of `OPTION_NAMES`.

    Raises InvalidArguments: if an option is not known or makes no sense.
    """
    if unknown := sorted(set(declared) - set(OPTION_NAMES)):
        raise InvalidArguments(
            f"{name!r} cannot declare {', '.join(map(repr, unknown))}", hint=f"it may declare {', '.join(OPTION_NAMES)}"
        )
    ShellOptions().with_asked(declared)

    async def run(call: ToolCall, arguments: Any) -> dict[str, Any]:
        command, how = _how(call, arguments, declared)
        return (await arun_command(command, **how)).as_dict()

    return Tool(name, run, policy)


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
