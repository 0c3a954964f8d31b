"""Two questions an orchestrator asks: is the loop alive (/live), and can it serve (/ready)."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agentos.core.health import HealthServer

if TYPE_CHECKING:
    from agentos.worker.process import Worker

LIVE_S = 30.0
"""A loop that has not run for this long is not coming back. A database outage is no reason to restart a fleet."""


@contextlib.asynccontextmanager
async def serve_health(worker: "Worker") -> AsyncIterator[None]:
    """Serve while the block runs, if a port was given."""
    port = worker.options.health_port
    if port is None:
        yield
        return
    server = HealthServer(
        live=lambda: worker.vitals.loop_age_s < LIVE_S,
        ready=lambda: worker.vitals.trusted and not worker.stopping.is_set(),
    )
    async with server.listening(port):
        yield
