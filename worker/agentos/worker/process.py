"""The worker process: one pump that flushes and claims, one task per item, and an orderly end.

```
          claim                    handler ends                flush
 ready ----------> held, running --------------> held, done ----------> outcome
   ^                  |  drain, outage: release
   +------------------+     declared dead: everything is dropped, a new worker id starts over
```
"""

import asyncio
import contextlib
import functools
import random
import signal

from agentos.core.app.limits import declarations
from agentos.core.logs import get_logger
from agentos.core.presence import Presence
from agentos.core.process import monotonic
from agentos.core.vigil import Notices
from agentos.core.wake import Waker
from agentos.store.calls import items, workers
from agentos.store.calls.items import Claimed
from agentos.store.connect import AsyncDatabase, Database, Target, locate
from agentos.store.counts import counts
from agentos.store.errors import DatabaseError, LanesChanged, WorkerDead
from agentos.store.run import adrive
from agentos.worker.behind import Behind
from agentos.worker.claims import Claims
from agentos.worker.execution import Execution
from agentos.worker.flush import Completions
from agentos.worker.health import serve_health
from agentos.worker.lanes import Lanes
from agentos.worker.options import Options
from agentos.worker.outage import TROUBLE, reason
from agentos.worker.pace import CLAIM_MOST, FLUSH_ITEMS, FLUSH_S, LOW, WINDOW_S, Pace
from agentos.worker.running import Attempt, Held, Stop
from agentos.worker.slots import Slots
from agentos.worker.solo import SoloChildren
from agentos.worker.threads import DaemonThreads, on_loop
from agentos.worker.vitals import Vitals

log = get_logger(__name__)

COMPARE_S = 30.0
"""How often memory and database are compared."""
POLL_JITTER = (0.7, 1.0)
"""Never longer than `poll_s`: without LISTEN what another worker hands back is found within that."""
LAST_WORDS_S = 4.0
"""What a drain may take beyond its grace."""
SOLO_IDLE = 1.0
"""A solo child leaves after this many TTLs without work: it may have been started while one runs out."""
SOLO_POLL_S = 0.25


class Worker:
    """One `agentos-worker` process. `run` returns when it has drained."""

    def __init__(self, options: Options, target: Target) -> None:
        self.options = options
        self.target = target
        self.held = Held()
        self.vitals = Vitals(options.settings.ttl_s)
        self.stopping = asyncio.Event()
        self._solo = SoloChildren(options.child_argv, options.settings.concurrency)
        self._sync_db = Database(target.dsn, max_size=1)
        self._waker = Waker(self._sync_db)
        self._presence: Presence | None = None
        self._dead = asyncio.Event()
        self._at_once = False
        self._pause = 0.1
        self._prepared_at = monotonic()

    async def run(self) -> None:
        """Serve until `stop`. Raises DatabaseUnavailable and its neighbours: only before it ever served."""
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        self._db = await AsyncDatabase.open(self.target.dsn)
        self._completions = Completions(self._db, self.held)
        self._execution = Execution(
            self.options, self._db, self._sync_db, self.vitals, completed=self._completed, left=self._left,
            given_back=self._waker.wake,
        )  # fmt: skip
        self._slots = Slots(self.options.concurrency, self._execution.run)
        self._lanes = Lanes(self._db)
        self._behind = self.vitals.behind = Behind(self._sync_db, self._slots, self.held, self._waker, self._unsure)
        self._pace = Pace(0 if self.options.solo else self.options.settings.prefetch)
        background = [asyncio.create_task(self.vitals.tick()), asyncio.create_task(self._self_fence())]
        if self.options.listen and self._db.pooled:
            log.info(
                "a transaction pooler is in front of the database: polling, not listening",
                poll_s=self.options.settings.poll_s,
            )
        unguard = self.vitals.guard_loop()
        try:
            async with serve_health(self):
                await self._declare_cron()
                await self._appear()
                await self._pump_until_stopped()
                await self._drain()
        finally:
            unguard()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._disappear()
            await self._db.close()
            self._sync_db.close()

    @property
    def db(self) -> AsyncDatabase:
        """The database, once `run` has opened it."""
        return self._db

    @property
    def slots(self) -> Slots:
        """Where its handlers run, once `run` has made them."""
        return self._slots

    @property
    def worker_id(self) -> int | None:
        """Under which it works now; None: it has not appeared yet, or starts over."""
        return self._presence.worker_id if self._presence is not None else None

    def wake(self) -> None:
        """Look for work now."""
        self.held.changed.set()

    def _noticed(self, queues: Notices) -> None:
        """There is new work, maybe of a tenant that had none before; or some soon."""
        if workers.GONE in queues:
            self._prepared_at = 0.0
            self.wake()
        self._claims.handed.noticed(queues)
        if not queues or not queues.isdisjoint(self.options.queues):
            self._lanes.woken = True
            self.wake()

    def stop(self) -> None:
        """The first signal: stop claiming and drain. The second: hand everything back now."""
        if self.stopping.is_set():
            log.warning("second signal: handing back now")
            self._at_once = True
            self.held.end_all(Stop.DRAIN)
            self._solo.signal(signal.SIGTERM)
        else:
            self.drain()

    def drain(self) -> None:
        """Stop claiming and drain; said again it means the same."""
        self.stopping.set()
        self.wake()

    async def _declare_cron(self) -> None:
        entries = self.options.app.cron_entries
        if entries and not self.options.solo:
            from agentos.core.app.cron import declare  # noqa: PLC0415  start-up: only an app with entries pays

            taken = await adrive(self._db, declare(tuple(entries.values())))
            log.info("cron entries declared", entries=sorted(entries), count=taken)

    async def _appear(self) -> Presence:
        """Register under a fresh worker id; what an earlier id held is dropped."""
        settings = self.options.settings
        presence = Presence(
            self._sync_db, role="solo" if self.options.solo else "worker", label=self.options.label,
            queues=self.options.queues, kinds=self.options.kinds, concurrency=self.options.concurrency,
            versions=self.options.versions, cron=tuple(self.options.app.cron_entries),
            settings=settings,
        )  # fmt: skip
        self._dead.clear()
        beat = presence.heartbeat
        beat.lag_ms = self.vitals.lag_ms
        beat.on_cancelled = on_loop(functools.partial(self.held.end_items, why=Stop.CANCELLED))
        beat.on_paused = on_loop(self.held.pause_items)
        beat.on_dead = on_loop(self._told_dead)
        if self.options.listen and not self._db.pooled:
            beat.on_notice = on_loop(self._noticed)
        self._claims = Claims(self._db, beat, self.held, self._slots, self._lanes, self._behind)
        await asyncio.to_thread(presence.start)
        self.vitals.heartbeat = beat
        try:
            for declared in declarations(self.options.app.handlers):
                await self._db.run(declared)
            await self._lanes.serve(self.options.queues, *self.options.served, solo=self.options.solo)
        except BaseException:
            await asyncio.to_thread(presence.stop)
            raise
        self._presence = presence
        self._compared_at = monotonic()
        log.info(
            "serving", worker_id=presence.worker_id, queues=self.options.queues, kinds=self.options.kinds,
            concurrency=self.options.concurrency, solo=self.options.solo,
        )  # fmt: skip
        return presence

    async def _disappear(self) -> None:
        if self._presence is not None:
            await asyncio.to_thread(self._presence.stop)
            self._presence = None

    def _completed(self, attempt: Attempt, text: str) -> None:
        self._completions.add(attempt, text)
        self._slots.freed()

    def _left(self, attempt: Attempt) -> None:
        """Its end is written, or somebody else's."""
        if attempt.stop is Stop.LOST:  # or nobody's: only a beat was late, and it is held still
            self._unsure()
        self.held.remove(attempt)
        self._slots.freed()

    def _unsure(self) -> None:
        """What this id holds has to be asked."""
        self._claims.ambiguous = True

    def _told_dead(self) -> None:
        self._dead.set()
        self.wake()

    async def _pump_until_stopped(self) -> None:
        idle_since = monotonic()
        while not self.stopping.is_set():
            self.vitals.turned()
            try:
                claimed = await self._turn(self._presence or await self._appear())
                self._pause = 0.1
            except WorkerDead:
                await self._drop_everything()
                continue
            except LanesChanged:
                self._unsure()
                continue
            except TROUBLE as exc:
                if self._may_leave(idle_since):  # whoever started it may be gone, and the database for good
                    return
                await self._wait_out(exc)
                continue
            if claimed or self.held:
                idle_since = monotonic()
            elif self._may_leave(idle_since):
                log.info("nothing left that must run alone")
                return
            await self._wait_for_change(claimed)

    def _may_leave(self, idle_since: float) -> bool:
        """A process for items that must run alone, without one for a while: another is started when one is needed."""
        idle_s = monotonic() - idle_since
        return self.options.solo and not self.held and idle_s > SOLO_IDLE * self.options.settings.ttl_s

    async def _turn(self, presence: Presence) -> Claimed:
        """Complete what has ended, and claim into what room there is, in one round trip."""
        self.held.changed.clear()
        if self._dead.is_set():
            raise WorkerDead(f"worker {presence.worker_id} was declared dead")
        if self._completions.uncertain:
            await self._completions.flush()
        if self._claims.ambiguous:
            await self._claims.adopt()
        if not self.vitals.trusted:
            self._claims.handed.stand_down()
            await self._completions.flush()
            await self._give_back_queue()
            return Claimed((), solo_waiting=False)
        await self._look_after(presence)
        if self._claims.handed.is_due() and (fetched := await self._claims.fetch()).items:
            return fetched
        self._pace.finished(self._completions.added)
        self._completions.added = 0
        prefetch = self._pace.prefetch
        if not prefetch:  # what runs takes its time
            self._slots.fill()
            await self._give_back_queue()
        room = self.options.concurrency + prefetch - (len(self.held) - len(self._completions))
        ahead = self._slots.free + (self._pace.ahead if prefetch else 0)
        claimed = await self._claims.turn(self._completions, max(room, 0), ahead)
        if claimed.solo_waiting:
            self._solo.wanted()
        return claimed

    async def _look_after(self, presence: Presence) -> None:
        """What is done every now and then."""
        if monotonic() - self._compared_at > COMPARE_S:
            await self._completions.flush()
            await self._claims.adopt(fetch=True)
            await self._db.run(workers.ensure_partitions())  # a look; without a coordinator nobody else would
            self._compared_at = monotonic()
        if monotonic() - self._prepared_at > self.options.settings.beat_s:
            self._solo.prepare(await self._claims.at_risk())
            self._prepared_at = monotonic()

    async def _wait_for_change(self, claimed: Claimed) -> None:
        """Until a handler ends, a wake-up comes, or the (jittered) poll interval is over."""
        slots, completions = self._slots, self._completions
        completions.gathering = slots.left_over > LOW
        room = slots.free - len(slots.queue)
        if len(claimed.items) >= CLAIM_MOST and (room >= CLAIM_MOST or len(completions) >= FLUSH_ITEMS):
            return  # the handlers are started and run while the next turn is under way: there is enough for it
        slots.fill()
        if slots.starved or (claimed.items and not completions.gathering and self._has_room()):
            await asyncio.sleep(0)  # more is likely there: only let the handlers run
            return
        if self.held.changed.is_set():
            await asyncio.sleep(0)
            return
        poll = self.options.settings.poll_s * random.uniform(*POLL_JITTER)
        if claimed.solo_waiting or self.options.solo:
            poll = min(poll, SOLO_POLL_S)
        if completions.gathering:
            poll = FLUSH_S
        elif slots.queue:
            poll = min(poll, WINDOW_S)
        self._claims.handed.stand(idle=not claimed.items)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll):
                await self.held.changed.wait()

    def _has_room(self) -> bool:
        return len(self.held) - len(self._completions) < self.options.concurrency + self._pace.prefetch

    async def _give_back_queue(self) -> None:
        for queue in await self._claims.give_back_queue():
            self._waker.wake(queue)

    async def _wait_out(self, exc: BaseException) -> None:
        log.warning("the database is away; trying again", error=reason(exc))
        counts.outages.add("turn")
        if self.target.embedded:  # nobody else starts a server again that was killed; its DSN stays the same
            with contextlib.suppress(DatabaseError):
                await asyncio.to_thread(locate, self.options.settings)
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(self._pause * 2, 5.0)

    async def _self_fence(self) -> None:
        """Stop handlers before the TTL ends when no beat gets through: others may run their items by then. What has
        ended is still offered when the database is back: its fence decides.
        """
        while True:
            await asyncio.sleep(min(self.options.settings.ttl_s / 20, 0.5))
            heartbeat = self.vitals.heartbeat
            if heartbeat is not None and heartbeat.lost and len(self.held):
                self.held.end_all(Stop.LOST)
                self._claims.ambiguous = True

    async def _drop_everything(self) -> None:
        """Declared dead: what it held belongs to others. The next turn starts over under a new worker id."""
        counts.deaths.add()
        log.error("declared dead; starting over under a new worker id", held=len(self.held))
        self.held.end_all(Stop.LOST)
        running = [a.task for a in self.held.attempts.values() if a.task is not None]
        if running:
            await asyncio.wait(running, timeout=LAST_WORDS_S)
        with contextlib.suppress(*TROUBLE):  # what had ended may not have been taken back yet
            await self._completions.flush()
        self._completions.forget()
        self._slots.queue.clear()
        self.held.clear()
        await self._disappear()

    async def _drain(self) -> None:
        """Let handlers reach a checkpoint within the grace, hand the rest back; beat until the last flush."""
        grace_s = self.options.settings.grace_s
        log.info("draining", held=len(self.held), grace_s=grace_s)
        self._execution.draining = True
        if self._presence is not None:
            with contextlib.suppress(WorkerDead, *TROUBLE):
                await self._claims.leave(self._completions)
        began = monotonic()
        deadline = began + grace_s
        solo = asyncio.create_task(self._solo.stop())
        with contextlib.suppress(*TROUBLE):
            await self._give_back_queue()
        while monotonic() < (deadline if self.held else began) + LAST_WORDS_S and (self.held or self._claims.ambiguous):
            if self._at_once or monotonic() >= deadline:
                self.held.end_all(Stop.DRAIN)
            self.held.changed.clear()
            try:
                await self._completions.flush()
                if self._claims.ambiguous:
                    await self._claims.adopt()
            except WorkerDead:
                break
            except TROUBLE as exc:
                await self._wait_out(exc)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(0.1, max(deadline - monotonic(), 0.01))):
                    await self.held.changed.wait()
        await self._give_up_the_rest()
        await solo
        await asyncio.to_thread(self._waker.flush)
        log.info("drained")

    async def _give_up_the_rest(self) -> None:
        """Handlers that do not end when they are told to: their leases are given back all the same."""
        for attempt in list(self.held.attempts.values()):
            log.warning("a handler does not end; its item is given back", task_id=attempt.item.task_id)
            with contextlib.suppress(*TROUBLE):
                await self._db.run(items.release(attempt.worker_id, [(attempt.item.item_id, attempt.item.token)]))
                self._waker.add(attempt.item.queue)
