"""Handlers that do everything wrong, one each."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.worker.app import app, effect

from agentos.core.app import BlockingContext, TaskContext

F = TypeVar("F", bound=Callable[..., Any])

BAD: dict[str, str] = {}
"""Kind of handler -> what its task's reason must say."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def bad(says: str, timeout_s: float | None = None) -> Callable[[F], F]:
    def register(function: F) -> F:
        kind = function.__name__
        BAD[kind] = says
        return app.task(kind, max_attempts=1, timeout_s=timeout_s)(function)

    return register


@bad("just because")
async def raises(ctx: TaskContext) -> None:
    raise ValueError("just because")


@bad("a\\0b")
async def raises_odd_text(ctx: TaskContext) -> None:
    raise ValueError("a\0b\ud800" + "x" * 10_000_000)


@bad("whose text cannot be had")
async def raises_unspeakable(ctx: TaskContext) -> None:
    raise Unspeakable


@bad("SystemExit")
async def exits(ctx: TaskContext) -> None:
    sys.exit(3)


@bad("SystemExit")
def exits_in_thread(ctx: BlockingContext) -> None:
    sys.exit(3)


@bad("KeyboardInterrupt")
async def interrupts(ctx: TaskContext) -> None:
    raise KeyboardInterrupt


@bad("StopIteration")
def stops_iterating(ctx: BlockingContext) -> None:
    next(iter([]))


@bad("CancelledError")
async def cancels_itself(ctx: TaskContext) -> None:
    raise asyncio.CancelledError


@bad("GeneratorExit")
async def exits_generator(ctx: TaskContext) -> None:
    raise GeneratorExit


@bad("ran longer", timeout_s=0.3)
async def hangs(ctx: TaskContext) -> None:
    await asyncio.sleep(3600)


@bad("ran longer", timeout_s=0.3)
def hangs_in_thread(ctx: BlockingContext) -> None:
    time.sleep(3600)


@bad("ran longer", timeout_s=0.3)
async def hangs_in_tool(ctx: TaskContext) -> None:
    await ctx.tool("sleep", key="k", execute=lambda call, arguments: time.sleep(3600))


@bad("ran longer", timeout_s=0.3)
async def hangs_and_is_deaf(ctx: TaskContext) -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            effect("deaf")


@bad("blocked the event loop")
async def blocks(ctx: TaskContext) -> None:
    time.sleep(3600)  # noqa: ASYNC251  that is the mistake


@bad("blocked the event loop")
async def blocks_in_a_task(ctx: TaskContext) -> None:
    async def child() -> None:
        while True:
            time.sleep(1)  # noqa: ASYNC251  again

    await asyncio.gather(child(), asyncio.sleep(3600))


@bad("cannot be stored")
async def returns_a_set(ctx: TaskContext) -> set[int]:
    return {1}


@bad("larger than its limit")
async def returns_300_mib(ctx: TaskContext) -> str:
    return "x" * 300 * 1024 * 1024


@bad("larger than its limit")
async def returns_300_mib_in_pieces(ctx: TaskContext) -> dict[str, Any]:
    return {"rows": ["x" * 1000] * 300_000}


@bad("does not fit")
async def wants_more(ctx: TaskContext, what: int) -> None:
    effect("never")
