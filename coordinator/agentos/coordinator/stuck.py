"""The duty that looks for work that stands still, and says so: in the log, as an event of the task, to metrics."""

from agentos.core.logs import get_logger
from agentos.store.calls import stuck
from agentos.store.calls.stuck import Change
from agentos.store.run import AsyncRunner
from agentos.store.settings import Settings

log = get_logger(__name__)

TOLD = 20
_FIXES = {
    "unroutable": "start a worker that serves it; agentos doctor names the command",
    "silent": "agentos show TASK; agentos cancel TASK, and give its handler a timeout_s",
}


async def look(db: AsyncRunner, settings: Settings) -> tuple[Change, ...]:
    """One look. What is found twice, half an interval apart at least, is told; what is over is told once more."""
    changes = await db.run(stuck.look_for_stuck(settings.silent_s, settings.stuck_s / 2))
    for reason, fix in _FIXES.items():
        if began := _tasks(changes, "stuck", reason):
            log.warning("tasks stand still", reason=reason, count=len(began), task_ids=began[:TOLD], fix=fix)
        if ended := _tasks(changes, "unstuck", reason):
            log.info("tasks go on", reason=reason, count=len(ended), task_ids=ended[:TOLD])
    return changes


def _tasks(changes: tuple[Change, ...], change: str, reason: str) -> list[str]:
    return sorted(each.task_id for each in changes if (each.change, each.reason) == (change, reason))
