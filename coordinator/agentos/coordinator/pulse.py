"""What the process knows of itself, for /livez, /readyz and /metrics."""

import asyncio
import time
from dataclasses import dataclass, field

from agentos.coordinator.leadership import Leadership
from agentos.coordinator.observed import Observed
from agentos.core.health import SchemaLook, Verdict
from agentos.store.connect import AsyncDatabase
from agentos.store.counts import counts

TICK_S = 0.1
LIVE_S = 120.0
"""Longer than one database call may take (60 s, and 10 s to connect): a database that hangs is no reason to restart."""


@dataclass(slots=True)
class Pulse:
    """The loops write it, probes ask it. `db`: None until there is one."""

    looped_at: float = field(default_factory=time.monotonic)
    database: bool = False
    stopping: bool = False
    db: AsyncDatabase | None = None
    leadership: Leadership | None = None
    observed: Observed = field(default_factory=Observed)
    _ticked_at: float = field(default_factory=time.monotonic)
    _done_at: dict[str, float] = field(default_factory=dict)
    _look: SchemaLook = field(default_factory=SchemaLook)

    def loop(self, *, database: bool) -> None:
        """A loop came round; whether the database answered it."""
        self.looped_at, self.database = time.monotonic(), database

    async def tick(self) -> None:
        """Runs while somebody may ask how late the event loop is."""
        while True:
            self._ticked_at = time.monotonic()
            await asyncio.sleep(TICK_S)

    def did(self, duty: str, took_s: float, *, failed: bool = False) -> None:
        """A duty was run."""
        counts.duties.observe(took_s, duty, "failed" if failed else "done")
        if not failed:
            self._done_at[duty] = time.monotonic()

    @property
    def lag_s(self) -> float:
        """How late the event loop is."""
        return max(0.0, time.monotonic() - self._ticked_at - TICK_S)

    @property
    def leading(self) -> bool:
        """Whether this coordinator leads."""
        return self.leadership is not None and self.leadership.leading

    def duty_ages(self) -> dict[str, float]:
        """Seconds since each duty was last done; of one that does not lead: nothing."""
        return {duty: time.monotonic() - at for duty, at in self._done_at.items()} if self.leading else {}

    async def look(self) -> None:
        """At the whole pool, as its leader tells it."""
        if self.leading:
            await self.observed.look(self.db)

    def live(self) -> Verdict:
        """Whether a loop came round lately, or at least began less than LIVE_S seconds ago."""
        age_s = time.monotonic() - self.looped_at
        return Verdict((f"no loop came round for {age_s:.0f} s",) if age_s >= LIVE_S else (), age_s)

    async def ready(self) -> Verdict:
        """Whether it does its duties: not stopping, and on a database that answers with the schema of this version."""
        if self.stopping:
            return Verdict(("stopping",))
        if not self.database or self.db is None:
            return Verdict(("the database did not answer when it was last asked",))
        reason = await self._look.reason(self.db)
        return Verdict((reason,) if reason else ())
