"""Being woken: a LISTEN connection of its own. Losing it costs latency, never work: polling does not stop."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import asyncpg

from agentos.core.logs import get_logger
from agentos.store.schema import schema
from agentos.store.transport import for_asyncpg

log = get_logger(__name__)

CHECK_S = 15.0
"""A connection whose peer vanished says nothing by itself; a query on it does."""


async def listen(dsn: str, queues: tuple[str, ...], wake: Callable[[], None]) -> None:
    """Call `wake` for each notice about one of `queues`, reconnecting for ever; runs until cancelled."""
    pause = 0.2

    def noticed(_conn: Any, _pid: int, _channel: str, payload: object) -> None:
        if payload in queues:
            wake()

    while True:
        try:
            conn = await asyncpg.connect(
                timeout=10, server_settings={"application_name": "agentos-listen"}, **for_asyncpg(dsn)
            )
            try:
                await conn.add_listener(f"{schema()}_wake", noticed)
                wake()  # what came while nobody listened
                pause = 0.2
                while True:
                    await asyncio.sleep(CHECK_S)
                    await conn.execute("SELECT 1", timeout=5)
            finally:
                conn.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            log.info("listening again soon", error=str(exc) or type(exc).__name__)
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(pause * 2, 10)
