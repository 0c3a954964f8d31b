"""Handlers in a process of their own that use all there is of a task context."""

import asyncio
import inspect
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentos.core.app import App, BlockingContext, Retry, TaskContext, ToolCall
from agentos.core.evidence import Evidence, EvidenceType
from agentos.core.flows.tools import ToolPolicy

app = App()
HERE = Path(__file__).name


@app.task("child")
async def child(_ctx: TaskContext, n: int) -> int:
    return n * n


@app.tool("double", on_doubt="retry")
def double(n: int) -> int:
    return 2 * n


def here(_call: ToolCall, arguments: Any) -> list[Any]:
    return [os.getpid(), arguments]


Use = Callable[[Any, dict[str, Any]], Any]
HELD = Evidence(EvidenceType.ARTIFACT_EXISTS, "this", {"path": __file__, "type": "file"})

USES: dict[str, Use] = {
    "task_id": lambda ctx, _: ctx.task_id,
    "item_id": lambda ctx, _: ctx.item_id,
    "attempt": lambda ctx, _: ctx.attempt,
    "version": lambda ctx, _: ctx.version,
    "key": lambda ctx, _: ctx.key,
    "snapshot": lambda ctx, _: ctx.snapshot,
    "left": lambda ctx, _: ctx.left,
    "log": lambda ctx, _: ctx.log("a line", n=1),
    "progress": lambda ctx, _: ctx.progress(1, 2, "half"),
    "tell_tokens": lambda ctx, _: ctx.tell_tokens("say", "some"),
    "checkpoint": lambda ctx, _: ctx.snapshot or ctx.checkpoint("iteration_end", {"at": 1}, [HELD]),
    "tool": lambda ctx, _: ctx.tool("double", 4, key="double"),
    "record": lambda ctx, _: ctx.record("known", {"x": 1}, {"y": 2}, key="known"),
    "record_llm": lambda ctx, _: ctx.record_llm("said", prompt="hi", output="ho"),
    "llm": lambda ctx, _: ctx.llm("said", prompt="hi"),
    "llm_stream": lambda ctx, _: ctx.llm_stream("said", prompt="hi"),
    "results": lambda ctx, _: ctx.results(),
    "artifact": lambda ctx, _: ctx.artifact(os.path.relpath(__file__)),
    "fetch_artifact": lambda ctx, made: ctx.fetch_artifact(made["artifact"], os.environ["FETCHED"]),
    "sleep": lambda ctx, _: ctx.sleep(3600),
    "sleep_until": lambda ctx, _: ctx.sleep_until(datetime(2020, 1, 1, tzinfo=UTC)),
    "wait_for": lambda ctx, _: ctx.wait_for("go"),
    "approval": lambda ctx, _: ctx.approval("go?", timeout_s=60),
    "spawn": lambda ctx, _: ctx.spawn("child", {"n": 3}, key="three"),
    "gather": lambda ctx, made: ctx.gather(made["spawn"]),
    "expand": lambda ctx, _: ctx.expand([{"key": "more", "kind": "child", "payload": {"n": 1}}]),
    "transaction": lambda ctx, _: ctx.transaction(),
}  # fmt: skip
"""Every public name of a context, in an order in which they can be used."""

REFUSED: dict[str, Use] = {
    "transaction": lambda ctx, _: ctx.transaction(),
    "policy": lambda ctx, _: ctx.tool("own", 1, execute=here, policy=ToolPolicy(on_doubt="retry")),
    "probe": lambda ctx, _: ctx.tool("own", 1, execute=here, on_doubt="probe", probe=here),
    "on_token": lambda ctx, _: ctx.llm("say", prompt="hi", on_token=print),
    "generate": lambda ctx, _: ctx.llm_stream("say", prompt="hi", generate=print),
}  # fmt: skip
"""What a process that holds no lease cannot have."""


def told(value: Any) -> Any:
    """As JSON."""
    plain = isinstance(value, str | int | float | list | dict | None)
    return value if plain else getattr(value, "name", type(value).__name__)


async def used(ctx: TaskContext, uses: dict[str, Use]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, use in uses.items():
        try:
            value: Any = use(ctx, made)
            if hasattr(value, "__aiter__"):
                value = "".join([text async for text in value])
            made[name] = await value if inspect.isawaitable(value) else value
        except Exception as exc:
            made[name] = f"{type(exc).__name__}: {exc}"
    return {name: told(value) for name, value in made.items()}


def used_blocking(ctx: BlockingContext, uses: dict[str, Use]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, use in uses.items():
        try:
            value: Any = use(ctx, made)
            made[name] = "".join(value) if hasattr(value, "__next__") else value
        except Exception as exc:
            made[name] = f"{type(exc).__name__}: {exc}"
    return {name: told(value) for name, value in made.items()}


@app.task("uses", isolation="process")
async def uses(ctx: TaskContext) -> dict[str, Any]:
    return await used(ctx, USES)


@app.task("uses_blocking", isolation="process")
def uses_blocking(ctx: BlockingContext) -> dict[str, Any]:
    return used_blocking(ctx, {name: use for name, use in USES.items() if hasattr(ctx, name)})


@app.task("refused", isolation="process")
async def refused(ctx: TaskContext) -> dict[str, Any]:
    return await used(ctx, REFUSED)


@app.task("refused_blocking", isolation="process")
def refused_blocking(ctx: BlockingContext) -> dict[str, Any]:
    return used_blocking(ctx, REFUSED)


@app.task("dies", isolation="process", retry=Retry(initial_s=0, jitter=0))
async def dies(ctx: TaskContext, at: str, when: str) -> dict[str, Any]:
    """In its first attempt its process, and only that, is killed -9 `when` it comes to `at`."""
    durable: dict[str, Any] = {
        "tool": lambda: ctx.tool("double", 1, key="one"),
        "checkpoint": lambda: ctx.checkpoint("tool_executed", {"at": 1}),
        "sleep": lambda: ctx.sleep(3600),
        "spawn": lambda: ctx.spawn("child", {"n": 3}, key="three"),
    }
    made: Any = None
    for name, do in durable.items():
        if (name == "checkpoint" and ctx.snapshot) or (name in ("sleep", "spawn") and name != at):
            continue
        here = ctx.attempt == 1 and name == at
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if here and when == "during":
            asking = asyncio.ensure_future(do())
            await asyncio.sleep(0)  # the question has left; nobody will be there to hear the answer
            os.kill(os.getpid(), signal.SIGKILL)
            await asking
        made = await do()
        if here and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
    return {"squares": await ctx.gather(made) if at == "spawn" else [], "snapshot": ctx.snapshot}
