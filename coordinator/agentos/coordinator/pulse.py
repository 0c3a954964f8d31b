"""What the process knows of itself, for /livez and /readyz."""

import time
from dataclasses import dataclass, field

from agentos.core.health import SchemaLook, Verdict
from agentos.store.connect import AsyncDatabase

LIVE_S = 120.0
"""Longer than one database call may take (60 s, and 10 s to connect): a database that hangs is no reason to restart."""


@dataclass(slots=True)
class Pulse:
    """The loops write it, probes ask it. `db`: None until there is one."""

    looped_at: float = field(default_factory=time.monotonic)
    database: bool = False
    stopping: bool = False
    db: AsyncDatabase | None = None
    _look: SchemaLook = field(default_factory=SchemaLook)

    def loop(self, *, database: bool) -> None:
        """A loop came round; whether the database answered it."""
        self.looped_at, self.database = time.monotonic(), database

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
