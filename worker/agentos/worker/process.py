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

from agentos.core.logs import get_logger
from agentos.core.presence import Presence
from agentos.core.process import monotonic
from agentos.core.wake import Waker
from agentos.store.calls import workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import AsyncDatabase, Database, Target
from agentos.store.errors import AgentOSError, DatabaseUnavailable, WorkerDead
from agentos.worker.claims import Claims
from agentos.worker.execution import Execution
from agentos.worker.flush import Completions
from agentos.worker.health import serve_health
from agentos.worker.listener import listen
from agentos.worker.options import Options
from agentos.worker.running import Attempt, Held, Stop
from agentos.worker.solo import SoloChildren
from agentos.worker.vitals import Vitals

log = get_logger(__name__)

COMPARE_S = 30.0
"""How often memory and database are compared."""
SOLO_IDLE_S = 3.0
"""A solo child leaves after this long without work."""


class Worker:
    """One `agentos-worker` process. `run` returns when it has drained."""

    def __init__(self, options: Options, target: Target) -> None:
        self.options = options
        self.target = target
        self.held = Held()
        self.vitals = Vitals(options.settings.ttl_s)
        self.stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._solo = SoloChildren(options.child_argv, options.settings.concurrency)
        self._sync_db = Database(target.dsn, max_size=1)
        self._pause = 0.1

    async def run(self) -> None:
        """Serve until `stop`. Raises DatabaseUnavailable and its neighbours: only before it ever served."""
        self._db = await AsyncDatabase.open(self.target.dsn)
        self._completions = Completions(self._db, self.held)
        self._execution = Execution(
            self.options, self._db, self._sync_db, self.vitals, self._completions.add, self.held.remove
        )
        background = [asyncio.create_task(self.vitals.tick()), asyncio.create_task(self._self_fence())]
        if self.options.listen:
            background.append(asyncio.create_task(listen(self.target.dsn, self.options.queues, self.wake)))
        unguard = self.vitals.guard_loop()
        try:
            async with serve_health(self):
                await self._appear()
                await self._pump_until_stopped()
                await self._drain()
        finally:
            unguard()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await asyncio.to_thread(self.presence.stop)
            await self._db.close()
            self._sync_db.close()

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()
        self.held.changed.set()

    def stop(self) -> None:
        """The first signal: stop claiming and drain. The second: hand everything back now."""
        if self.stopping.is_set():
            log.warning("second signal: handing back now")
            self.held.end_all(Stop.DRAIN)
        else:
            self.stopping.set()
            self.wake()

    async def _appear(self) -> None:
        """Register under a fresh worker id; what an earlier id held is dropped."""
        settings = self.options.settings
        self.presence = Presence(
            self._sync_db, role="solo" if self.options.solo else "worker", label=self.options.label,
            queues=self.options.queues, kinds=self.options.kinds, concurrency=self.options.concurrency,
            settings=settings,
        )  # fmt: skip
        heartbeat = self.presence.heartbeat
        heartbeat.lag_ms = self.vitals.lag_ms
        heartbeat.on_cancelled = functools.partial(self._cancelled, asyncio.get_running_loop())
        await asyncio.to_thread(self.presence.start)
        self.vitals.heartbeat = heartbeat
        self._claims = Claims(self._db, self.presence.worker_id, settings.ttl_s)
        await self._claims.serve(self.options.queues, self.options.kinds, solo=self.options.solo)
        self._compared_at = monotonic()
        log.info(
            "serving", worker_id=self.presence.worker_id, queues=self.options.queues, kinds=self.options.kinds,
            concurrency=self.options.concurrency, solo=self.options.solo,
        )  # fmt: skip

    def _cancelled(self, loop: asyncio.AbstractEventLoop, item_ids: frozenset[int]) -> None:
        """From the beat's thread."""
        loop.call_soon_threadsafe(self.held.end_items, item_ids, Stop.CANCELLED)

    async def _pump_until_stopped(self) -> None:
        idle_since = monotonic()
        while not self.stopping.is_set():
            try:
                claimed = await self._turn()
                self._pause = 0.1
            except WorkerDead:
                await self._start_over()
                continue
            except DatabaseUnavailable as exc:
                await self._wait_out(exc)
                continue
            if claimed or self.held:
                idle_since = monotonic()
            elif self.options.solo and monotonic() - idle_since > SOLO_IDLE_S:
                log.info("nothing left that must run alone")
                return
            await self._wait_for_change(claimed)

    async def _turn(self) -> int:
        """Flush, then claim into the free slots. Returns how many were claimed."""
        self._wake.clear()
        self.held.changed.clear()
        await self._completions.flush()
        if not self.vitals.trusted:
            return 0
        if monotonic() - self._compared_at > COMPARE_S:
            await self._claims.adopt(self.held)
            self._compared_at = monotonic()
        free = self.options.concurrency - len(self.held)
        claimed = await self._claims.claim(max(free, 0), self.held)
        for item in claimed.items:
            self._start(item)
        if claimed.solo_waiting:
            await self._solo.wanted()
        return len(claimed.items)

    def _start(self, item: ClaimedItem) -> None:
        attempt = Attempt(item, self.presence.worker_id)
        self.held.add(attempt)
        attempt.task = asyncio.create_task(self._execution.run(attempt))

    async def _wait_for_change(self, claimed: int) -> None:
        """Until a handler ends, a wake-up comes, or the (jittered) poll interval is over."""
        if self._completions or (claimed and len(self.held) < self.options.concurrency):
            await asyncio.sleep(0)  # more is likely there: only let the handlers run
            return
        poll = self.options.settings.poll_s * random.uniform(0.75, 1.25)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll):
                await self.held.changed.wait()

    async def _wait_out(self, exc: AgentOSError) -> None:
        log.warning("the database is away; trying again", error=exc.message)
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(self._pause * 2, 5.0)

    async def _self_fence(self) -> None:
        """Stop handlers before the TTL ends when no beat gets through: others may run their items by then."""
        while True:
            await asyncio.sleep(min(self.options.settings.ttl_s / 20, 0.5))
            heartbeat = self.vitals.heartbeat
            if heartbeat is not None and heartbeat.lost and len(self.held):
                self._completions.forget()
                self.held.end_all(Stop.LOST)

    async def _start_over(self) -> None:
        """Declared dead: everything it held belongs to others."""
        log.error("declared dead; starting over under a new worker id", held=len(self.held))
        self._completions.forget()
        self.held.end_all(Stop.LOST)
        await self._until_empty(5.0)
        self.held.attempts.clear()
        await asyncio.to_thread(self.presence.stop)
        await self._appear()

    async def _until_empty(self, timeout_s: float) -> None:
        running = [a.task for a in self.held.attempts.values() if a.task is not None]
        if running:
            await asyncio.wait(running, timeout=timeout_s)

    async def _drain(self) -> None:
        """Let handlers reach a checkpoint within the grace, hand the rest back; beat until the last flush."""
        grace_s = self.options.settings.grace_s
        log.info("draining", held=len(self.held), grace_s=grace_s)
        self._execution.draining = True
        with contextlib.suppress(AgentOSError):
            await self._db.run(workers.retire_worker(self.presence.worker_id, "draining"))
        deadline = monotonic() + grace_s
        solo = asyncio.create_task(self._solo.stop())
        while self.held and monotonic() < deadline + 5.0:
            if monotonic() >= deadline:
                self.held.end_all(Stop.DRAIN)
            self.held.changed.clear()
            try:
                await self._completions.flush()
            except (DatabaseUnavailable, WorkerDead) as exc:
                await self._wait_out(exc)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.held.changed.wait()
        await solo
        await asyncio.to_thread(self._say_goodbye)

    def _say_goodbye(self) -> None:
        """Others may take over now what was handed back."""
        waker = Waker(self._sync_db)
        for queue in self.options.queues:
            waker.add(queue)
        waker.flush()
        log.info("drained")
