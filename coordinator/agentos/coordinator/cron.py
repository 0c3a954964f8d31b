"""Firing cron entries: which of the times that came are to become tasks."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentos.core.calendar import schedule
from agentos.core.logs import get_logger
from agentos.store.calls import cron, workers
from agentos.store.calls.cron import CronRow
from agentos.store.errors import AgentOSError, DatabaseError
from agentos.store.run import AsyncRunner

log = get_logger(__name__)

GRACE = timedelta(seconds=60)
"""A time that came longer ago was missed, and the entry's `misfire` decides about it."""


@dataclass(frozen=True, slots=True)
class Firing:
    """The times to fire, how many are not, and the next one after them."""

    instants: tuple[datetime, ...]
    skipped: int
    next_at: datetime


def firing(entry: CronRow) -> Firing:
    """What to do about an entry whose time has come. Raises ConfigInvalid: if this host cannot read its schedule."""
    when = schedule(entry.expression, entry.timezone)
    came = when.between(entry.next_at, entry.now) or [entry.next_at]
    in_time = [each for each in came if entry.now - each <= GRACE]
    if entry.misfire == "all":
        chosen = came[-entry.misfire_max :]
    elif entry.misfire == "once":
        chosen = in_time or came[-1:]
    else:
        chosen = in_time
    return Firing(tuple(chosen), len(came) - len(chosen), when.after(entry.now))


async def fire(db: AsyncRunner) -> int:
    """Fire what is due. An entry that cannot be fired keeps none of the others waiting. Returns how many tasks."""
    made = 0
    for entry in await db.run(cron.list_cron(due=True)):
        try:
            made += await _fire_one(db, entry)
        except DatabaseError:
            raise
        except AgentOSError as error:
            log.warning("cron entry cannot be fired", entry=entry.name, error=str(error))
    return made


async def _fire_one(db: AsyncRunner, entry: CronRow) -> int:
    found = await asyncio.to_thread(firing, entry)  # thousands of missed times take a while
    made = await db.run(cron.fire_cron(entry, found.instants, found.skipped, found.next_at))
    if made is None:
        return 0
    if found.skipped:
        log.warning("cron times skipped", entry=entry.name, count=found.skipped, misfire=entry.misfire)
    log.info("cron fired", entry=entry.name, task_ids=made[-20:], next_at=found.next_at.isoformat())
    await db.run(workers.wake([entry.queue]))
    return len(made)
