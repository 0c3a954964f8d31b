"""Handlers that run in a process of their own, most of which die there."""

import asyncio
import ctypes
import os
import signal
import time
from typing import Any

from tests.worker.app import app as neighbours
from tests.worker.app import effect, until_told

from agentos.core.app import App, BlockingContext, Retry, TaskContext, ToolCall
from agentos.store.errors import IsolationRefused

app = App()
app.tools.update(neighbours.tools)


class Hopeless(Exception):
    """What this program knows no retry mends."""


def crash() -> None:
    ctypes.string_at(0)


@app.task("neighbour")
async def neighbour(ctx: TaskContext) -> int:
    """In the worker's own process, all the time."""
    effect("neighbour", os.getpid())
    await until_told("go")
    return ctx.attempt


@app.task("segfaults", isolation="process", max_attempts=1)
async def segfaults(_ctx: TaskContext) -> None:
    print("last words", flush=True)
    crash()


@app.task("bomb", isolation="process", memory_mb=256, max_attempts=1)
def bomb(_ctx: BlockingContext) -> None:
    held = []
    while True:
        held.append(bytearray(8 * 1024 * 1024))


@app.task("malloc_bomb", isolation="process", memory_mb=256, max_attempts=1)
def malloc_bomb(_ctx: BlockingContext) -> None:
    """In C, which dies of it."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    while True:
        ctypes.memset(malloc(8 * 1024 * 1024) or 0, 1, 8 * 1024 * 1024)


@app.task("exits", isolation="process", max_attempts=1)
def exits(_ctx: BlockingContext) -> None:
    os._exit(7)


@app.task("never", isolation="process", timeout_s=8.0, max_attempts=1)
async def never(_ctx: TaskContext) -> None:
    """It blocks its event loop and every signal: nothing but SIGKILL ends it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    effect("never", os.getpid())
    while True:
        time.sleep(0.01)  # noqa: ASYNC251  on purpose


@app.task("stays", isolation="process")
async def stays(ctx: TaskContext) -> str:
    """With a process of its own in another session."""
    if ctx.attempt > 1:
        return "second"
    if os.fork() == 0:
        os.setsid()
        effect("stays", os.getpid())
        time.sleep(1000)  # noqa: ASYNC251  in a process that has no loop
    effect("stays", os.getpid())
    await asyncio.Event().wait()
    return "never"


@app.task("resumes", isolation="process", retry=Retry(initial_s=0, jitter=0))
async def resumes(ctx: TaskContext) -> dict[str, Any]:
    done = await ctx.tool("touch_world", {"n": 1}, key="one")
    if ctx.attempt == 1:
        await ctx.checkpoint("tool_executed", {"at": 1})
        crash()
    again = await ctx.tool("touch_world", {"n": 2}, key="two")
    return {"snapshot": ctx.snapshot, "one": done, "two": again, "attempt": ctx.attempt}


@app.task("resumes_plain", isolation="process", retry=Retry(initial_s=0, jitter=0))
def resumes_plain(ctx: BlockingContext) -> dict[str, Any]:
    done = ctx.tool("touch_world", {"n": 1}, key="one")
    if ctx.attempt == 1:
        ctx.checkpoint("tool_executed", {"at": 1})
        crash()
    again = ctx.tool("touch_world", {"n": 2}, key="two")
    return {"snapshot": ctx.snapshot, "one": done, "two": again, "attempt": ctx.attempt}


@app.task("waits", isolation="process")
async def waits(ctx: TaskContext) -> Any:
    effect("waits", os.getpid())
    try:
        return await ctx.wait_for("go")
    finally:
        effect("left", os.getpid())


@app.task("waits_plain", isolation="process")
def waits_plain(ctx: BlockingContext) -> Any:
    effect("waits", os.getpid())
    try:
        return ctx.wait_for("go")
    finally:
        effect("left", os.getpid())


@app.task("cleans_up", isolation="process")
async def cleans_up(_ctx: TaskContext) -> None:
    effect("running", os.getpid())
    try:
        await asyncio.Event().wait()
    finally:
        effect("cleaned", os.getpid())


@app.task("cleans_up_slowly", isolation="process", cancel_grace_s=20)
async def cleans_up_slowly(_ctx: TaskContext) -> None:
    """Longer than a second, which a fixed grace was once."""
    effect("running", os.getpid())
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1.3)
        effect("cleaned", os.getpid())


@app.task("stubborn", isolation="process", cancel_grace_s=0.2)
def stubborn(_ctx: BlockingContext) -> None:
    effect("running", os.getpid())
    while True:
        time.sleep(0.01)


@app.task("drains", isolation="process")
async def drains(ctx: TaskContext) -> Any:
    if ctx.snapshot:
        return ctx.snapshot
    effect("running", os.getpid())
    await until_told("draining")
    await ctx.checkpoint("tool_executed", {"at": 1})
    effect("went on")
    return None


@app.task("hopeless", isolation="process", retry=Retry(never=(Hopeless,)))
async def hopeless(_ctx: TaskContext) -> None:
    raise Hopeless("give up")


@app.task("unstorable", isolation="process", max_attempts=1)
async def unstorable(_ctx: TaskContext) -> Any:
    return object()


@app.task("child", isolation="process")
async def child(_ctx: TaskContext, n: int) -> int:
    return n * n


async def execute(call: ToolCall, arguments: Any) -> dict[str, Any]:
    return {"pid": os.getpid(), "arguments": arguments, "key": len(call.idempotency_key)}


@app.task("everything", isolation="process")
async def everything(ctx: TaskContext) -> dict[str, Any]:
    ctx.progress(1, 2, "half")
    ctx.log("a line", n=1)
    own = await ctx.tool("own", {"x": 1}, execute=execute)
    made = await ctx.llm("say", prompt="hi", generate=lambda prompt: prompt.upper())
    streamed = "".join([text async for text in ctx.llm_stream("tell", prompt="a story")])
    squares = await ctx.gather(*[await ctx.spawn("child", {"n": n}) for n in (2, 3)])
    refused = ""
    try:
        ctx.transaction()
    except IsolationRefused as exc:
        refused = str(exc)
    secrets = [name for name, value in os.environ.items() if name == "AGENTOS_DSN" or "postgres" in value]
    return {
        "own": own, "here": own["pid"] == os.getpid(), "made": made, "streamed": bool(streamed), "squares": squares,
        "refused": refused, "secrets": secrets,
    }  # fmt: skip


@app.task("everything_plain", isolation="process")
def everything_plain(ctx: BlockingContext) -> dict[str, Any]:
    ctx.progress(1, 2, "half")
    ctx.log("a line", n=1)
    own = ctx.tool("own", {"x": 1}, execute=execute)
    made = ctx.llm("say", prompt="hi", generate=lambda prompt: prompt.upper())
    streamed = "".join(ctx.llm_stream("tell", prompt="a story"))
    squares = ctx.gather(*[ctx.spawn("child", {"n": n}) for n in (2, 3)])
    refused = ""
    try:
        ctx.transaction()
    except IsolationRefused as exc:
        refused = str(exc)
    secrets = [name for name, value in os.environ.items() if name == "AGENTOS_DSN" or "postgres" in value]
    return {
        "own": own, "here": own["pid"] == os.getpid(), "made": made, "streamed": bool(streamed), "squares": squares,
        "refused": refused, "secrets": secrets,
    }  # fmt: skip
