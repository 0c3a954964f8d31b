"""Handlers for the tests. What they do to the world is a line in the file EFFECTS, written in one append."""

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

from asyncpg.transaction import Transaction
from tests.crash.fault import fault, is_now

from agentos.core.app import NOT_DONE, App, BlockingContext, Done, TaskContext, ToolCall

app = App()
LOG = Path(os.environ.get("EFFECTS", "effects.log"))


def effect(*words: Any) -> None:
    """Append a line: what the world remembers."""
    with LOG.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def happened(*words: Any) -> bool:
    return LOG.exists() and " ".join(map(str, words)) in LOG.read_text().splitlines()


async def until_told(name: str) -> None:
    """Until the test says `name` (a file beside the log)."""
    while not LOG.with_name(name).exists():  # noqa: ASYNC110  the test is another process
        await asyncio.sleep(0.01)


def probe(call: ToolCall) -> Any:
    return Done({"probed": True}) if happened("effect", call.idempotency_key) else NOT_DONE


@app.tool("touch_world", on_doubt="probe", probe=probe)
async def touch_world(call: ToolCall, arguments: Any) -> dict[str, Any]:
    fault("effect", "before")
    effect("effect", call.idempotency_key)
    fault("effect", "after")
    return {"did": arguments}


@app.tool("fragile")
async def fragile(call: ToolCall, arguments: Any) -> dict[str, Any]:
    effect("fragile", call.idempotency_key)
    fault("fragile", "after")
    return {"did": arguments}


@app.task("careless")
async def careless(ctx: TaskContext) -> dict[str, Any]:
    """Calls a tool that does not say what to do in doubt."""
    return await ctx.tool("fragile", {})


async def generate(prompt: str) -> dict[str, str]:
    fault("generate", "before")
    effect("llm", prompt)
    fault("generate", "after")
    return {"plan": prompt}


@app.task("journey")
async def journey(ctx: TaskContext, steps: int = 3, pause_after: int | None = None) -> dict[str, Any]:
    """Plan once, then steps of one effect and one checkpoint each."""
    state = ctx.snapshot or {"done": []}
    plan = await ctx.llm("plan", prompt=f"plan {ctx.task_id}", model="m", generate=generate)
    for step in range(len(state["done"]), steps):
        await ctx.tool("touch_world", {"step": step})
        state["done"].append(step)
        await ctx.checkpoint("iteration_end", state)
        if pause_after == step:
            effect("paused", ctx.item_id, ctx.attempt)
            await until_told("go")
    return {**plan, **state}


@app.task("blocking_journey")
def blocking_journey(ctx: BlockingContext, steps: int = 3, pause_after: int | None = None) -> dict[str, Any]:
    """The same in a thread."""
    state = ctx.snapshot or {"done": []}
    for step in range(len(state["done"]), steps):
        ctx.tool("touch_world", {"step": step})
        state["done"].append(step)
        ctx.checkpoint("iteration_end", state)
        if pause_after == step:
            effect("paused", ctx.item_id, ctx.attempt)
            while not LOG.with_name("go").exists():
                time.sleep(0.01)
    return state


@app.task("archives")
async def archives(ctx: TaskContext, parts: int = 2) -> list[str]:
    """Write files in this worker's own folder, store them as artifacts, read them all back at the end."""
    here, state = Path(os.environ["WORKSPACE"]), ctx.snapshot or []
    for n in range(len(state), parts):
        (here / f"part-{n}").write_text(f"part {n} " * 1000)
        stored = await ctx.artifact(here / f"part-{n}")
        state.append(stored.as_json())
        await ctx.checkpoint("iteration_end", state, [stored])
    return [(await ctx.fetch_artifact(each, here / "fetched" / str(n))).read_text() for n, each in enumerate(state)]


@app.task("steps")
async def steps(ctx: TaskContext, n: int) -> int:
    for step in range(n):
        await ctx.checkpoint("iteration_end", {"step": step, "text": "x" * 1000})
    return n


@app.task("quick")
async def quick(ctx: TaskContext, n: int) -> int:
    effect("ran", n)
    return n


@app.task("frozen")
async def frozen(ctx: TaskContext) -> list[bool]:
    """Whether the collector looks through what this module made when it was imported, and through new things."""
    seen = {id(each) for each in gc.get_objects()}
    return [id(globals()) in seen, id(seen) in {id(each) for each in gc.get_objects()}]


@app.task("wait")
async def wait(ctx: TaskContext, name: str = "go") -> str:
    """Say that it runs, and wait to be told."""
    effect("waiting", ctx.item_id, ctx.attempt, os.getpid())
    try:
        await until_told(name)
    except asyncio.CancelledError:
        effect("cancelled", ctx.item_id, ctx.attempt, time.monotonic())
        raise
    return "told"


@app.task("chew")
async def chew(ctx: TaskContext) -> None:
    """Works in steps of some 50 ms, each of which keeps the event loop from running."""
    effect("chewing")
    try:
        while True:
            for _ in range(2_000_000):
                pass
            await asyncio.sleep(0)
    except BaseException as exc:
        effect("stopped", type(exc).__name__)
        raise


@app.task("numbered")
async def numbered(ctx: TaskContext, n: int, wait_from: int = 1_000_000, block_at: int = -1) -> int:
    """Short; from `wait_from` on it waits to be told, at `block_at` it keeps the event loop from running until then."""
    effect("began", ctx.item_id, os.getpid())
    while n == block_at and not LOG.with_name("go").exists():
        time.sleep(0.005)  # noqa: ASYNC251  on purpose
    if n >= wait_from:
        await until_told("go")
    return n


@app.task("poison")
async def poison(ctx: TaskContext) -> None:
    effect("poison", os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


@app.task("fails_once")
async def fails_once(ctx: TaskContext) -> str:
    if ctx.attempt == 1:
        raise ValueError("the first time")
    return "second"


@app.task("sleepwalker")
def sleepwalker(ctx: BlockingContext, then: str) -> str:
    """Wait to be told, then do one durable thing: what a zombie tries when it wakes. In a thread that nobody stops."""
    effect("waiting", then, ctx.attempt)
    while not LOG.with_name("go").exists():
        time.sleep(0.005)
    try:
        match then:
            case "checkpoint":
                ctx.checkpoint("iteration_end", {"by": ctx.attempt})
            case "tool":
                ctx.tool("touch_world", {}, key="once")
            case "llm":
                ctx.llm("plan", prompt="zombie", model="m", generate=generate)
    except BaseException as exc:
        effect("refused", then, ctx.attempt, type(exc).__name__)
        raise
    return f"by attempt {ctx.attempt}"


@app.task("deaf")
async def deaf(ctx: TaskContext) -> None:
    """Goes on, whatever it is told."""
    effect("waiting", ctx.item_id, ctx.attempt)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            effect("deaf", ctx.item_id)


@app.task("busy")
async def busy(ctx: TaskContext) -> None:
    """A side effect every 20 ms until told."""
    n = 0
    while not LOG.with_name("go").exists():
        n += 1
        await ctx.tool("tick", {"n": n}, execute=_tick)
        await asyncio.sleep(0.02)


async def _tick(_call: ToolCall, _arguments: Any) -> None:
    effect("busy", time.monotonic())


@app.task("acknowledged", max_attempts=20)
async def acknowledged(ctx: TaskContext, steps: int = 5) -> list[int]:
    """Every checkpoint whose commit was acknowledged is in the log, too."""
    done: list[int] = ctx.snapshot or []
    for step in range(len(done), steps):
        await ctx.tool("touch_world", {"step": step})
        done.append(step)
        committed = await ctx.checkpoint("iteration_end", done)
        effect("ack", ctx.task_id, committed.sequence_number)
    return done


@app.task("stepping")
async def stepping(ctx: TaskContext, steps: int) -> int:
    """Keyed calls and checkpoints, as many as it is told; beside others they share their commits."""
    state = ctx.snapshot or {"done": 0}
    while state["done"] < steps:
        await ctx.tool("touch_world", state["done"], key=f"step-{state['done']}")
        state["done"] += 1
        await ctx.checkpoint("iteration_end", state)
    return int(state["done"])


@app.task("pays")
async def pays(ctx: TaskContext, steps: int = 3) -> dict[str, Any]:
    """Each step is a row of the user's own and a checkpoint, in one transaction."""
    state = ctx.snapshot or {"paid": 0}
    while state["paid"] < steps:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO payments (step) VALUES ($1)", state["paid"])
            fault("payment", "after")
            state["paid"] += 1
            await ctx.checkpoint("iteration_end", state)
            fault("commit", "before")
            if is_now("commit", "during"):
                _die_once_sent()
        fault("commit", "after")
    return state


def _die_once_sent() -> None:
    """At the end of the transaction: COMMIT goes out, and nobody is there to read the reply."""
    leave = Transaction.__aexit__

    async def leave_and_die(self: Any, *error: Any) -> None:
        sent = asyncio.ensure_future(leave(self, *error))
        await asyncio.sleep(0)  # it ran to where it waits for the reply
        os.kill(os.getpid(), signal.SIGKILL)
        await sent

    Transaction.__aexit__ = leave_and_die  # type: ignore[assignment,method-assign]
