"""The span of an attempt: asked for where it begins, ended where its outcome is known."""

from typing import TYPE_CHECKING

from agentos.core.logs import get_logger
from agentos.core.tracing.setup import find
from agentos.store.calls.traces import trace_of
from agentos.store.run import AsyncRunner
from agentos.worker.outage import TROUBLE, reason
from agentos.worker.running import Attempt

if TYPE_CHECKING:
    from agentos.core.tracing.tracer import AttemptSpan

log = get_logger(__name__)


async def begin_span(db: AsyncRunner, attempt: Attempt) -> "AttemptSpan | None":
    """Of the running task's attempt; None: this process does not trace. One that does asks the database once more."""
    tracing = find()
    if tracing is None:
        return None
    item = attempt.item
    try:
        origin = await db.run(trace_of(item.task_id, item.item_id, item.attempt))
    except TROUBLE as exc:  # no reason not to run it
        log.debug("an attempt is not traced", error=reason(exc))
        return None
    if origin is None:
        return None
    span = tracing.attempt(item, attempt.worker_id, origin)
    span.enter()
    return span
