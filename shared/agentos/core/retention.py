"""Retention: what ended long ago goes, in small commits, and partitions of days go as a whole.

What may go is decided by the database in the transaction that takes it away (sql/functions/119_retire.sql and
121_partitions.sql); the policy only says when it is asked. Whoever is killed at any step has finished some commits and
not begun the next: another round, by anybody, goes on from what it finds.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

import asyncpg

from agentos.core.logs import get_logger
from agentos.store.calls import blobs, retention
from agentos.store.calls.retention import DayPartition, Kind
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts
from agentos.store.errors import DatabaseBusy, PartitionRefused, SchemaMissing
from agentos.store.schema import in_schema
from agentos.store.settings import Settings

log = get_logger(__name__)

_TASKS: tuple[Kind, ...] = ("tasks",)

SLICE = 500
"""Tasks that one commit looks at."""
CLEARED = 100
ROWS = 2000
"""Retired tasks that one commit clears, and rows of each table that it deletes at most."""
KEPT = 5000
"""Outcomes, or events, of a partition that one commit looks at."""
REST_S = 0.02
DETACH_S = 30.0
"""Seconds for a DETACH CONCURRENTLY: it waits for every transaction that reads the parent, and keeps nobody waiting."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Days for which each is kept, counted from the end of its task (events: from when they happened, usage: from its
    day, `retired`: from the retirement; outcomes: from when they were written); None: for ever. Parts of large values:
    seconds, from when the last reference went.
    """

    tasks_d: float | None
    checkpoints_d: float | None
    ledger_d: float | None
    cache_d: float | None
    events_d: float | None
    usage_d: float | None
    retired_d: float | None
    outcomes_d: float | None
    blobs_s: float | None

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """As the settings say."""
        return cls(
            settings.retention_tasks_d, settings.retention_checkpoints_d, settings.retention_ledger_d,
            settings.retention_cache_d, settings.retention_events_d, settings.retention_usage_d,
            settings.retention_retired_d, settings.retention_outcomes_d, settings.retention_blobs_s,
        )  # fmt: skip

    def walks(self) -> tuple[tuple[tuple[Kind, ...], float], ...]:
        """What is looked for among all tasks: kinds that go after the same number of days. Records that are kept as
        long as their task go with it."""
        of: tuple[tuple[Kind, float | None], ...] = (
            ("checkpoints", self.checkpoints_d), ("ledger", self.ledger_d), ("cache", self.cache_d),
        )  # fmt: skip
        earlier = {kind: d for kind, d in of if d is not None and (self.tasks_d is None or d < self.tasks_d)}
        walks = [(tuple(kind for kind in earlier if earlier[kind] == d), d) for d in sorted({*earlier.values()})]
        return (*([(_TASKS, self.tasks_d)] if self.tasks_d is not None else []), *walks)


@dataclass(slots=True)
class Did:
    """What was done. `parts`: of large values; `done`: all that was due; `blocked`: partitions that could not go, and
    why."""

    retired: int = 0
    trimmed: int = 0
    partitions: list[str] = field(default_factory=list)
    forgotten: int = 0
    parts: int = 0
    blocked: dict[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass(slots=True)
class Retention:
    """`round` works for a while and remembers where it was; the next one goes on."""

    policy: Policy
    _pass: AsyncIterator[None] | None = None
    _did: Did = field(default_factory=Did)

    async def round(self, db: AsyncDatabase, budget_s: float) -> Did:
        """Go on with the pass over everything for about so long. Returns what this round did."""
        until, self._did = monotonic() + budget_s, Did()
        steps = self._pass or self._steps(db)
        self._pass = None  # a pass that fails begins anew
        async for _ in steps:
            if monotonic() > until:
                self._pass = steps
                break
            await asyncio.sleep(REST_S)
        else:
            self._did.done = True
            await db.run(retention.note_retention(done=True, blocked=self._did.blocked))
        _tell(self._did)
        return self._did

    async def _steps(self, db: AsyncDatabase) -> AsyncIterator[None]:
        """Everything, a commit or a partition at a time. Partitions after tasks: what a retired task leaves in them is
        no longer anybody's, and has not to be kept."""
        now = await db.run(retention.database_time())
        blocked: dict[str, str] = {}
        async for _ in self._clear(db):
            yield
        for kinds, days in self.policy.walks():
            async for _ in self._walk(db, kinds, now - timedelta(days=days)):
                yield
        due = retention.partitions_due(_ago(now, self.policy.outcomes_d), _ago(now, self.policy.events_d))
        for partition in await db.run(due):
            try:
                reason = await drop(db, partition)
            except PartitionRefused:  # it was another's round that took it away
                continue
            if reason:
                blocked[partition.name] = reason
            else:
                self._did.partitions.append(partition.name)
            yield
        before = _ago(now, self.policy.retired_d), _ago(now, self.policy.usage_d)
        while gone := await db.run(retention.forget_retired(*before, ROWS)):
            self._did.forgotten += gone
            yield
        async for _ in self._collect(db):
            yield
        self._did.blocked = blocked

    async def _walk(self, db: AsyncDatabase, kinds: tuple[Kind, ...], before: datetime) -> AsyncIterator[None]:
        at, task_id = None, None
        while True:
            found = await db.run(retention.retire_slice(at, task_id, before, kinds, SLICE))
            if "tasks" in kinds:
                self._did.retired += found.count
            else:
                self._did.trimmed += found.count
            yield
            async for _ in self._clear(db):
                yield
            if found.at is None:
                return
            at, task_id = found.at, found.task_id

    async def _clear(self, db: AsyncDatabase) -> AsyncIterator[None]:
        while await db.run(retention.clear_retired(CLEARED, ROWS)):
            yield

    async def _collect(self, db: AsyncDatabase) -> AsyncIterator[None]:
        """As `tidy` does every half a minute; here for whoever applies a policy by hand."""
        while self.policy.blobs_s is not None and (gone := await db.run(blobs.collect_blobs(self.policy.blobs_s))):
            self._did.parts += gone
            yield


def _ago(now: datetime, days: float | None) -> datetime | None:
    return None if days is None else now - timedelta(days=days)


async def drop(db: AsyncDatabase, partition: DayPartition) -> str | None:
    """Take a partition of a day through what is left of its steps. Returns why it cannot go; None: it has gone.

    Raises PartitionRefused: if another has taken it away.
    """
    try:
        if partition.state == "attached" and not await _keep_and_seal(db, partition):
            return "rows of live tasks come in as fast as they are kept"
        if partition.state in ("attached", "sealed") and partition.owned:
            await _detach(db, partition)
        if not await db.run(retention.drop_partition(partition.name)):
            return "something in it lives again; it is kept, and looked at anew"
    except DatabaseBusy as error:
        return error.message
    except (asyncpg.UndefinedTableError, SchemaMissing) as error:  # the first of the detach, the other of a call
        raise PartitionRefused(f"partition {partition.name} has gone") from error
    except (asyncpg.PostgresError, TimeoutError) as error:
        return str(error) or f"it was not detached within {DETACH_S:g} s: a transaction that may read it does not end"
    log.info("partition dropped", partition=partition.name, bytes=partition.bytes)
    return None


async def _keep_and_seal(db: AsyncDatabase, partition: DayPartition) -> bool:
    for _ in range(3):
        await _keep(db, partition)
        if await db.run(retention.seal_partition(partition.name)):
            return True
    return False


async def _keep(db: AsyncDatabase, partition: DayPartition) -> None:
    if partition.parent == "outcomes":
        item: int | None = 0
        while item is not None:
            item = await db.run(retention.keep_outcomes(partition.name, item, KEPT))
    else:
        task: str | None = ""
        while task is not None:
            task = await db.run(retention.keep_events(partition.name, task, KEPT))


async def _detach(db: AsyncDatabase, partition: DayPartition) -> None:
    """Not in a transaction, where the server does not allow it. Who dies in it leaves it `detaching`: it is dropped."""
    statement = "ALTER TABLE agentos.{} DETACH PARTITION agentos.{} CONCURRENTLY"
    async with db.lent() as conn:
        if not db.pooled:  # where SET would meet another session
            await conn.execute("SET lock_timeout = '10s'")
        await conn.execute(in_schema(statement).format(partition.parent, partition.name), timeout=DETACH_S)


def _tell(did: Did) -> None:
    for what, n in (("task", did.retired), ("trimmed", did.trimmed), ("partition", len(did.partitions))):
        counts.retired.add(what, amount=n)
    if did.retired or did.trimmed:
        log.info("tasks retired", count=did.retired, trimmed=did.trimmed)
    for name, reason in did.blocked.items():
        log.warning(
            "a partition cannot go", partition=name, reason=reason, fix="agentos doctor names who is in the way"
        )
