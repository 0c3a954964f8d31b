"""The process's vital signs: its beat, its event loop, and what to do when one of them stops."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from agentos.core.lease import current_lease
from agentos.core.logs import get_logger
from agentos.core.presence import Heartbeat
from agentos.core.process import monotonic
from agentos.worker.behind import Behind

log = get_logger(__name__)

TICK_S = 0.1
LOOK_S = 0.25
PATIENCE_S = 0.5
"""A loop that stands still for longer has what waits behind it given back: within a second, looks included."""


class LoopBlocked(Exception):
    """The handler kept the event loop from running, and its neighbours with it."""


class Vitals:
    """Ticks on the event loop; a beat's thread reads how long ago. A handler that blocks the loop longer than `limit_s`
    is interrupted where it stands, by a signal whose handler raises in the main thread. Long before, what waits
    `behind` it is given back.

    How long a handler blocks it is counted look by look: time in which the whole process stood still (SIGSTOP, a
    suspended host) counts for little, as whatever handler it stood in is not to blame.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ticked = self._turned = monotonic()
        self._seen = self._ticked
        self._looked_at, self._used_s = monotonic(), time.process_time()
        self._stood_s = 0.0
        self._stop = threading.Event()
        self.heartbeat: Heartbeat | None = None
        self.behind: Behind | None = None

    @property
    def trusted(self) -> bool:
        """Whether a side effect may be started now."""
        return self.heartbeat is not None and self.heartbeat.trusted

    @property
    def beating(self) -> bool:
        """Whether no beat is overdue. While it is not, a database that does not answer a handler is another one, or
        the handler's own doing, and the attempt is charged.
        """
        return self.heartbeat is not None and self.heartbeat.age_s < self.heartbeat.beat_s * 1.5

    @property
    def loop_age_s(self) -> float:
        """Seconds since the event loop last ran: what liveness means."""
        return monotonic() - self._ticked

    @property
    def turn_age_s(self) -> float:
        """Seconds since the pump last came round."""
        return monotonic() - self._turned

    def turned(self) -> None:
        """The pump came round, whatever the database answered."""
        self._turned = monotonic()

    def lag_ms(self) -> int:
        """How late the loop is, for the beat to report."""
        return max(0, int((self.loop_age_s - TICK_S) * 1000))

    async def tick(self) -> None:
        """Runs for the life of the process."""
        while True:
            self._ticked = monotonic()
            await asyncio.sleep(TICK_S)

    def guard_loop(self) -> Callable[[], None]:
        """Watch the loop from a thread; returns what stops the watching. Main thread only; POSIX only."""
        if not hasattr(signal, "pthread_kill"):
            return lambda: None
        signal.signal(signal.SIGUSR1, self._interrupt)
        main = threading.main_thread().ident or 0
        threading.Thread(target=self._watch, args=(main,), name="agentos-vitals", daemon=True).start()
        return self._stop.set

    def _watch(self, main: int) -> None:
        while not self._stop.wait(min(self._limit_s / 4, LOOK_S)):
            stands_s = self.loop_age_s
            self._count()
            if self._stood_s > self._limit_s:
                log.error("the event loop is blocked; interrupting the handler", lag_s=round(stands_s, 1))
                signal.pthread_kill(main, signal.SIGUSR1)
            elif self.behind is not None and stands_s > PATIENCE_S and self.behind.waits:
                signal.pthread_kill(main, signal.SIGUSR1)
            if self.behind is not None:
                self.behind.give_back()
                if stands_s > PATIENCE_S:
                    self.behind.stalled()

    def _count(self) -> None:
        """How long the loop has stood still by what looks have seen of it. A look that came late, while the process did
        nothing, saw only that.
        """
        ticked, now, used_s = self._ticked, monotonic(), time.process_time()
        since_s, worked_s = now - self._looked_at, used_s - self._used_s
        seen_s = since_s if worked_s > since_s / 2 else min(since_s, 2 * LOOK_S)
        self._looked_at, self._used_s = now, used_s
        if self._seen != ticked:
            self._seen, self._stood_s = ticked, min(now - ticked, seen_s)
        else:
            self._stood_s += seen_s

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Does something only if the main thread stands under a lease, in a handler or a task it made; anywhere else it
        would break the loop itself. Raises there when the loop is blocked.
        """
        stands_s = self.loop_age_s
        if current_lease.get() is None:
            return
        if self._stood_s > self._limit_s < stands_s:  # it may have run between the look and the signal
            self._ticked = monotonic()
            raise LoopBlocked(
                f"the handler blocked the event loop for {stands_s:.1f} s; await what takes long, or make it a plain "
                f"`def`, which runs in a thread of its own"
            )
        if self.behind is not None and stands_s > PATIENCE_S:
            self.behind.take()
