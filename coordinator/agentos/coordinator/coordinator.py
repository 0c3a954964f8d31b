"""The process: loops that come round until a signal ends them, whatever the database does meanwhile."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from agentos.coordinator.backoff import Backoff
from agentos.coordinator.duties import Duty, duties
from agentos.coordinator.leadership import Leadership
from agentos.coordinator.metrics import coordinator_readings
from agentos.coordinator.pulse import Pulse
from agentos.core.durability import warn_if_unsafe
from agentos.core.health import PATHS, HealthServer
from agentos.core.logs import get_logger
from agentos.core.metrics import names
from agentos.core.metrics.figures import Figures
from agentos.core.process import monotonic, new_worker_id
from agentos.store.connect import AsyncDatabase, connect, locate, open_target
from agentos.store.counts import counts
from agentos.store.errors import AgentOSError, DatabaseError, DatabaseUnavailable, SchemaMissing, SchemaTooNew
from agentos.store.migrate import check_schema
from agentos.store.settings import Settings

log = get_logger(__name__)

CONNECTIONS = 2
"""Of the lead and the duties that must not wait, and as many of those that may take seconds."""
GOODBYE_S = 2.0


@dataclass(slots=True)
class Coordinator:
    """`await Coordinator(settings).run()` returns after the first SIGTERM or SIGINT; a second one ends the process.

    Raises SchemaMissing, SchemaIncomplete, SchemaTooNew: if it does not know the schema, at the start or later.
    """

    settings: Settings
    migrate: bool = False
    health_port: int | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _pulse: Pulse = field(default_factory=Pulse)

    async def run(self) -> None:
        """Coordinate until a signal."""
        self._listen_to_signals()
        async with self._probes():
            await self._work_until_stopped()
        log.info("stopped")

    @asynccontextmanager
    async def _probes(self) -> AsyncIterator[None]:
        if self.health_port is None:
            yield
            return
        figures = Figures(
            (*names.PROCESS, *names.COORDINATOR, *names.POOL),
            lambda: coordinator_readings(self._pulse),
            self._pulse.look,
        )
        server = HealthServer(self._pulse.live, self._pulse.ready, figures, self.settings.health_host)
        async with server.listening(self.health_port) as port:
            log.info("health", port=port, paths=PATHS)
            ticking = asyncio.create_task(self._pulse.tick())
            try:
                yield
            finally:
                ticking.cancel()

    async def _work_until_stopped(self) -> None:
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stopping:
            self._pulse.stopping = True
            log.info("stopping")
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    async def _work(self) -> None:
        db, slow = await self._open()
        leadership = self._pulse.leadership = Leadership(new_worker_id(), self.settings.ttl_s)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask_to_lead(db, leadership))
                for duty in duties(self.settings):
                    group.create_task(self._repeat(slow if duty.slow else db, leadership, duty))
        except ExceptionGroup as failed:  # only what _looked_at lets through gets here
            raise failed.exceptions[0] from None
        finally:
            await slow.close()
            await self._say_goodbye(db, leadership)

    async def _open(self) -> tuple[AsyncDatabase, AsyncDatabase]:
        """The database, once it answers and its schema is one that this version knows; twice, see CONNECTIONS."""
        backoff = Backoff(cap_s=self._patience_s())
        while True:
            try:
                # In a thread: it blocks, and probes want to be answered meanwhile.
                target = await asyncio.to_thread(open_target, self.settings, may_migrate=self.migrate)
                await asyncio.to_thread(warn_if_unsafe, target.dsn)
                db = await AsyncDatabase.open(target.dsn, max_size=CONNECTIONS)
                slow = await AsyncDatabase.open(target.dsn, max_size=CONNECTIONS)
            except DatabaseUnavailable as error:
                self._pulse.loop(database=False)
                await self._rest(backoff, "starting", error)
            else:
                self._pulse.db = db
                log.info("coordinating", ttl_s=self.settings.ttl_s, sweep_s=self.settings.sweep_s, pid=os.getpid())
                return db, slow

    async def _ask_to_lead(self, db: AsyncDatabase, leadership: Leadership) -> None:
        backoff = Backoff(cap_s=min(self._patience_s(), leadership.ask_s))
        while True:
            try:
                await leadership.ask(db)
            except Exception as error:  # a daemon outlives whatever its database does
                leadership.lose("the database does not answer")
                self._pulse.loop(database=False)
                await self._looked_at(db, error)
                await self._rest(backoff, "leading", error)
            else:
                backoff.reset()
                self._pulse.loop(database=True)
                await asyncio.sleep(leadership.ask_s)

    async def _repeat(self, db: AsyncDatabase, leadership: Leadership, duty: Duty) -> None:
        backoff = Backoff(cap_s=self._patience_s())
        while True:
            await leadership.wait()
            began = monotonic()
            try:
                pause_s = await duty.run(db)
            except Exception as error:  # as above
                self._pulse.did(duty.name, monotonic() - began, failed=True)
                await self._looked_at(db, error)
                await self._rest(backoff, duty.name, error)
            else:
                self._pulse.did(duty.name, monotonic() - began)
                backoff.reset()
                await asyncio.sleep(pause_s)

    async def _looked_at(self, db: AsyncDatabase, error: Exception) -> None:
        """A function that is not there any more: perhaps a newer agentos migrated the schema under this process."""
        if not isinstance(error, SchemaMissing):
            return
        with suppress(DatabaseUnavailable, SchemaMissing):
            await asyncio.to_thread(_check_again, open_target(self.settings).dsn)

    async def _rest(self, backoff: Backoff, doing: str, error: Exception) -> None:
        pause_s = backoff.next_s()
        counts.outages.add(doing)
        known = isinstance(error, AgentOSError)
        log.warning(
            "trying again", doing=doing, in_s=round(pause_s, 2), error=str(error) or repr(error), exc_info=not known
        )
        await asyncio.sleep(pause_s)
        if isinstance(error, DatabaseUnavailable) and self.settings.dsn is None:
            with suppress(DatabaseError):  # an embedded server that was killed starts again when it is asked for
                await asyncio.to_thread(locate, self.settings)

    def _patience_s(self) -> float:
        return min(5.0, self.settings.ttl_s / 3)

    async def _say_goodbye(self, db: AsyncDatabase, leadership: Leadership) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await leadership.resign(db)
        except (AgentOSError, TimeoutError) as error:
            log.warning("could not resign; the lead ends by itself", error=str(error) or repr(error))
        await db.close()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._on_signal(signal.Signals(number), loop))

    def _on_signal(self, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> None:
        if self._stopping:
            os._exit(128 + number)
        self._stopping = True
        loop.call_soon_threadsafe(self._stop.set)


def _check_again(dsn: str) -> None:
    """Raises SchemaTooNew: and nothing else that ends the process; an older or broken schema may yet be mended."""
    with connect(dsn) as conn:
        try:
            check_schema(conn)
        except SchemaTooNew:
            raise
        except AgentOSError as error:
            log.warning("the schema is not fit", error=str(error))
