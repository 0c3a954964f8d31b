"""Two questions an orchestrator asks: is the loop alive (/livez), and can it serve (/readyz); and /metrics."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agentos.core.health import PATHS, HealthServer, SchemaLook, Verdict
from agentos.core.logs import get_logger
from agentos.core.metrics import names
from agentos.core.metrics.figures import Figures
from agentos.worker.metrics import worker_readings

if TYPE_CHECKING:
    from agentos.worker.process import Worker

log = get_logger(__name__)

LIVE_S = 30.0
"""An event loop that has not run for this long is not coming back."""
TURN_S = 120.0
"""Longer than a database call may take (60 s, and 10 s to connect): an outage is no reason to restart a fleet."""


def live(worker: "Worker") -> Verdict:
    """Whether the event loop runs, and the pump comes round on it: not when the database last answered."""
    vitals = worker.vitals
    turn_s = max(TURN_S, 2 * worker.options.settings.ttl_s)
    reasons = []
    if vitals.loop_age_s >= LIVE_S:
        reasons.append(f"the event loop has not run for {vitals.loop_age_s:.0f} s")
    if not worker.stopping.is_set() and vitals.turn_age_s >= turn_s:  # a drain ends by its own grace
        reasons.append(f"no turn for {vitals.turn_age_s:.0f} s")
    return Verdict(tuple(reasons), max(vitals.loop_age_s, 0.0))


async def ready(worker: "Worker", look: SchemaLook) -> Verdict:
    """Whether it claims: not draining, beating, and on the schema of this version."""
    if worker.stopping.is_set():
        return Verdict(("draining",))
    if not worker.vitals.trusted:
        return Verdict(("no beat has reached the database lately",))
    reason = await look.reason(worker.db)
    return Verdict((reason,) if reason else ())


@contextlib.asynccontextmanager
async def serve_health(worker: "Worker") -> AsyncIterator[None]:
    """Serve while the block runs, if a port was given."""
    port = worker.options.health_port
    if port is None:
        yield
        return
    look = SchemaLook()
    figures = Figures((*names.PROCESS, *names.WORKER), lambda: worker_readings(worker))
    host = worker.options.settings.health_host
    server = HealthServer(lambda: live(worker), lambda: ready(worker, look), figures, host)
    async with server.listening(port) as listening:
        log.info("health", port=listening, paths=PATHS)
        yield
