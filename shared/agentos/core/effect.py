"""Code with a side effect, started only while the process may still trust its lease."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from agentos.core.transaction import refuse_effect
from agentos.store.run import is_async

BeforeEffect = Callable[[], Awaitable[None]]
"""Returns when a side effect may be started; waits while no beat gets through."""


def guarded(function: Callable[..., Any], before: BeforeEffect | None) -> Callable[..., Any]:
    """`function`, awaited by an event loop once `before` has returned. Without `before`: as it is.

    Asked at the last moment: the process may have been stopped since the call was recorded as begun.
    Raises EffectInTransaction: when it is awaited inside `ctx.transaction()`.
    """
    if before is None:
        return function

    async def run(*args: Any) -> Any:
        refuse_effect()
        await before()
        if is_async(function):
            return await function(*args)
        made = await asyncio.to_thread(function, *args)
        return await made if inspect.isawaitable(made) else made

    return run


def with_arguments(function: Callable[..., Any], arguments: Any) -> Callable[..., Any]:
    """`function(call, arguments)` as a function of `call` alone, async if it is."""
    if not is_async(function):
        return lambda call: function(call, arguments)

    async def run(call: Any) -> Any:
        return await function(call, arguments)

    return run
