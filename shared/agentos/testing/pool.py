"""A pool for one test: its database, its clock, and workers that drain."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, LiteralString, TypeVar

from agentos.coordinator.once import sweep
from agentos.core.app import App
from agentos.core.process import host
from agentos.store.calls import coordinator, flow, workers
from agentos.store.connect import Database, Target
from agentos.store.run import AsyncRunner, Call
from agentos.store.schema import in_schema
from agentos.store.settings import Settings, load_settings
from agentos.testing.clock import Clock
from agentos.testing.crash import COMMIT, CrashPoint, CrashPointNotReached, Saboteur, armed
from agentos.testing.fork import Ended, in_child
from agentos.worker.options import Options, reference_to
from agentos.worker.process import Worker

T = TypeVar("T")

LOOK_S = 0.005
POLL_S = 0.02
"""Between two claims of a worker with room: what it is to do next it mostly gets with its last completion."""
WORKERS_OWN = frozenset({
    "ask", "ask_doubt", "cache_abandon", "cache_begin", "cache_discard", "cache_finish", "claim", "commit_checkpoint",
    "commit_parted", "complete", "expand", "fail", "hold_fence", "keep_verdict", "ledger_begin", "ledger_finish",
    "ledger_resume", "note_resume", "park_paused", "spawn", "supersede", "tell", COMMIT, "turn", "wait", "write_batch",
})  # fmt: skip
"""Calls that no coordinator makes: who is to die at one need not sweep before, on connections that are cold."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How many items ended while it drained, by outcome; how many are left, by place; whether it was killed."""

    ended: dict[str, int]
    left: dict[str, int]
    killed: bool = False


@dataclass(slots=True)
class Pool:
    """The pool of one test. `AGENTOS_DSN` names its database, so that `app.submit` goes there."""

    dsn: str
    clock: Clock

    def drain(self, app: App, *, skip_waits: bool = False, timeout_s: float = 60.0, must_die: bool = True) -> Drained:
        """Work until nothing is ready that `app` can run; with `skip_waits` the clock is moved on to whatever is due
        next (retries, sleeps, timeouts), until nothing is.

        Handlers with `isolation="process"` must be, with their App, at the top of a module: another process imports it.
        Under `crash_at` this happens in a child process that dies there; what it held is free again when this returns.
        Raises CrashPointNotReached: if it did not die, unless `must_die` is False. TimeoutError.
        """
        point, before, killed = armed(), self._ended(), False
        if point is None:
            asyncio.run(self._work(app, skip_waits, timeout_s))
        else:
            killed = self._die_at(point, app, skip_waits, timeout_s, must_die)
        return self._drained(before, killed=killed)

    async def adrain(
        self, app: App, *, skip_waits: bool = False, timeout_s: float = 60.0, must_die: bool = True
    ) -> Drained:
        """`drain`, for a test that is async."""
        point, before, killed = armed(), self._ended(), False
        if point is None:
            await self._work(app, skip_waits, timeout_s)
        else:
            killed = await asyncio.to_thread(self._die_at, point, app, skip_waits, timeout_s, must_die)
        return self._drained(before, killed=killed)

    @property
    def database(self) -> Database:
        """The blocking handle on the pool's database."""
        return Database.default(load_settings(dsn=self.dsn))

    def rows(self, query: LiteralString, *args: Any) -> list[tuple[Any, ...]]:
        """What a query finds now."""
        with self.database.connection() as conn:
            return conn.execute(in_schema(query), args).fetchall()

    async def _work(self, app: App, skip_waits: bool, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await _drain(self.database, self._options(app), self.clock, skip_waits=skip_waits)

    def _drained(self, before: Counter[str], *, killed: bool) -> Drained:
        return Drained(dict(self._ended() - before), self._left(), killed=killed)

    def _options(self, app: App) -> Options:
        queues = tuple(queue for (queue,) in self.rows("SELECT DISTINCT queue FROM agentos.lanes")) or ("default",)
        settings = load_settings(dsn=self.dsn, poll_s=POLL_S)
        return Options(
            settings, app, queues=queues, allow_shell=True, listen=False, app_reference=reference_to(app)
        )  # fmt: skip

    def _die_at(self, point: CrashPoint, app: App, skip_waits: bool, timeout_s: float, must_die: bool) -> bool:
        options = self._options(app)
        if swept := point.call in WORKERS_OWN:
            asyncio.run(_sweep(self.database, options))

        def victim(tell: Any) -> None:
            Saboteur(point, tell).install()
            asyncio.run(_drain(self.database, options, self.clock, skip_waits=skip_waits, swept=swept))

        ended = in_child(victim, timeout_s=timeout_s)
        if not ended.killed and (must_die or ended.code):
            raise _not_reached(point, ended)
        gone = [w.worker_id for w in self.database.run(workers.local_workers(host())) if w.pid == ended.pid]
        self.database.run(workers.declare_dead(gone))
        return ended.killed

    def _ended(self) -> Counter[str]:
        return Counter(dict(self.rows("SELECT status, count(*)::integer FROM agentos.outcomes GROUP BY 1")))

    def _left(self) -> dict[str, int]:
        return dict(
            self.rows("SELECT place, count(*)::integer FROM agentos.item_places WHERE place <> 'outcome' GROUP BY 1")
        )


def _not_reached(point: CrashPoint, ended: Ended) -> CrashPointNotReached:
    if ended.code:
        return CrashPointNotReached(
            f"the worker ended with {ended.code} before it came to {point}", hint="its traceback is on stderr"
        )
    passed = ", ".join(f"{name} x{n}" for name, n in Counter(ended.told).most_common())
    return CrashPointNotReached(
        f"the worker drained without coming to {point}; it passed {passed or 'no call'}",
        hint="submit first, and choose a point that the handler's program passes",
    )


@dataclass(frozen=True, slots=True)
class _InThreads:
    """The process's own database, awaited: its connections are warm, where each sweep's own would plan all anew."""

    database: Database

    async def run(self, call: Call[T]) -> T:
        return await asyncio.to_thread(self.database.run, call)


async def _sweep(database: Database, options: Options) -> None:
    await sweep(_InThreads(database), options.settings)


async def _drain(
    database: Database, options: Options, clock: Clock, *, skip_waits: bool, swept: bool = False
) -> None:  # fmt: skip
    db = _InThreads(database)
    while True:
        if not swept:
            await _sweep(database, options)
        swept = False
        for solo in (False, True):
            await _work(db, options, solo=solo)
        if await _is_ready(db, options, solo=None):
            continue
        due_s = await db.run(coordinator.next_due_s())
        if due_s is None or (due_s > 0 and not skip_waits):
            return
        if due_s > 0:
            clock.advance(due_s + LOOK_S)


async def _work(db: AsyncRunner, options: Options, *, solo: bool) -> None:
    """A worker until there is nothing for it; `solo`: the one of items that crashed, one at a time."""
    if not await _is_ready(db, options, solo=solo):
        return
    worker = Worker(replace(options, solo=solo), _target(options.settings))
    running = asyncio.create_task(worker.run())
    try:
        while not running.done() and await _is_busy(db, options, worker):  # noqa: ASYNC110  it happens in the database
            await asyncio.sleep(LOOK_S)
    finally:
        worker.drain()
        await running


async def _is_busy(db: AsyncRunner, options: Options, worker: Worker) -> bool:
    """What it has claimed counts as soon as that is committed: it may not have read the reply."""
    if worker.held or await _is_ready(db, options, solo=worker.options.solo):
        return True
    return worker.worker_id is not None and await db.run(held_by(worker.worker_id))


def _target(settings: Settings) -> Target:
    return Target(settings.dsn or "", embedded=False)


async def _is_ready(db: AsyncRunner, options: Options, *, solo: bool | None) -> bool:
    lanes = (await db.run(flow.served_lanes(options.queues, *options.served))).lanes
    served = [sign * each.lane for sign in _signs(solo=solo) for each in lanes]
    return await db.run(ready_in(served))


def _signs(*, solo: bool | None) -> tuple[int, ...]:
    return (1, -1) if solo is None else (-1,) if solo else (1,)


def held_by(worker_id: int) -> Call[bool]:
    """Whether this worker holds anything."""
    return Call(
        "SELECT EXISTS (SELECT 1 FROM agentos.lease_held h WHERE h.worker_id = $1::bigint) AS found", (worker_id,),
        lambda rows: bool(rows[0]["found"]),
    )  # fmt: skip


def ready_in(lanes: list[int]) -> Call[bool]:
    """Whether anything is ready in these lanes, and their limits let it be claimed."""
    return Call(
        "SELECT cardinality(agentos.lanes_with_room($1::integer[], 1)) > 0 AS found", (lanes,),
        lambda rows: bool(rows[0]["found"]),
    )  # fmt: skip
