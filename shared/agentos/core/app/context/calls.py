"""Calls that are recorded and made once: tools."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.flows.tools import ToolCall, ToolPolicy
from agentos.core.tracing.step import step
from agentos.store.calls.ledger import OnDoubt


class Calls(Bound):
    """`ctx.tool`."""

    async def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
        on_doubt: OnDoubt | None = None, probe: Callable[..., Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a tool once: its intent is recorded before, its result after; a later attempt gets the recorded result.

        `key` names the call; without it a call is told by tool, arguments and place in the program, and the same call
        made twice on purpose is two calls. `execute`, `policy`: instead of a registered tool and its declaration.
        `on_doubt`, `probe`: instead of the declared ones, for this call: retry, probe, ask or fail.
        Raises InDoubt, PostconditionFailed, CallBeforeCheckpoint, ProgramChanged: when going on would repeat or
        invent an effect.
        """
        return await self._tool(
            asyncio.current_task() is self._main, name, arguments, key=key, execute=execute, policy=policy,
            on_doubt=on_doubt, probe=probe,
        )  # fmt: skip

    async def _tool(self, ordered: bool, name: str, arguments: Any, **how: Any) -> dict[str, Any]:
        await self._park_if_paused()
        with step(f"execute_tool {name}", gen_ai__operation__name="execute_tool", gen_ai__tool__name=name):
            return (await self._run(self._scope.tool(name, arguments, ordered=ordered, **how))).result


class BlockingCalls(BlockingBound[Calls]):
    """The same, blocking."""

    def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
        on_doubt: OnDoubt | None = None, probe: Callable[..., Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """As `TaskContext.tool`."""
        ordered = threading.get_ident() == self._thread
        call = self._context._tool(
            ordered, name, arguments, key=key, execute=execute, policy=policy, on_doubt=on_doubt, probe=probe
        )
        return self._wait(call)
