"""Handlers that declare limits."""

import asyncio

from agentos.core.app import App, Limit, Rate, TaskContext

app = App()


@app.task("page", concurrency=Limit(2, key="site"))
async def page(ctx: TaskContext, site: str, n: int) -> int:
    """Takes its place for a while."""
    await asyncio.sleep(0.1)
    return n


@app.task("slow", concurrency=Limit(1))
async def slow(ctx: TaskContext) -> None:
    """Holds its place until it is killed."""
    await asyncio.sleep(600)


@app.task("call", rate=Rate(3, per_s=3600))
async def call(ctx: TaskContext, n: int) -> int:
    """Charged when it is claimed."""
    return n
