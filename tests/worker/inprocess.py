"""A worker inside the test's own event loop: for what a handler sees, where no process has to die."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agentos.core.app import App, TaskHandle
from agentos.store.connect import Target
from agentos.store.settings import load_settings
from agentos.worker.options import Options
from agentos.worker.process import Worker


@asynccontextmanager
async def serving(
    app: App, dsn: str, *, queues: tuple[str, ...] = ("default",), **settings: object
) -> AsyncIterator[Worker]:
    """A worker of `app` that drains at the end of the block."""
    found = load_settings(**{"dsn": dsn, "poll_s": 0.05, "ttl_s": 60, **settings})
    worker = Worker(Options(found, app, queues=queues), Target(dsn, embedded=False))
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await running


async def outcome(handle: TaskHandle, timeout_s: float = 60) -> Any:
    """Its result, or the error that says how it ended."""
    try:
        return await handle.aresult(timeout_s)
    except Exception as error:
        return error
