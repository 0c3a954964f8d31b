"""Calls that are recorded and paid for once: tools and models."""

import functools
from collections.abc import Callable
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound, GenerateFunction
from agentos.core.flows.tools import ToolCall, ToolPolicy


class Calls(Bound):
    """`ctx.tool`, `ctx.llm`."""

    async def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a tool once: its intent is recorded before, its result after; a later attempt gets the recorded result.

        `key` names the call; without it a call is told by tool, arguments and place in the program, and the same call
        made twice on purpose is two calls. `execute`, `policy`: instead of a registered tool and its declaration.
        Raises InDoubt, PostconditionFailed, CallBeforeCheckpoint: when going on would repeat or invent an effect.
        """
        outcome = await self._run(self._scope.tool(name, arguments, key=key, execute=execute, policy=policy))
        return outcome.result

    async def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        sample: int | None = None,
    ) -> Any:  # fmt: skip
        """A model's output, paid for once: the same operation, prompt and model of this task are answered by the
        record.

        `generate(prompt)`: sync or async, any JSON value; default: the endpoint of AGENTOS_LLM_*, else the stand-in.
        `sample`: asks for a second, third ... output on purpose.
        """
        make = functools.partial(generate or self._complete, prompt)
        flow = self._scope.llm(operation_type, prompt, model=model or self._model, generate=make, sample=sample)
        return await self._run(flow)


class BlockingCalls(BlockingBound[Calls]):
    """The same, blocking."""

    def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """As `TaskContext.tool`."""
        return self._wait(self._context.tool(name, arguments, key=key, execute=execute, policy=policy))

    def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        sample: int | None = None,
    ) -> Any:  # fmt: skip
        """As `TaskContext.llm`."""
        return self._wait(
            self._context.llm(operation_type, prompt=prompt, model=model, generate=generate, sample=sample)
        )
