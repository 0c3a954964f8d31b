"""What the process knows of itself, for /live and /ready."""

import time
from dataclasses import dataclass, field

LIVE_S = 120.0
"""Longer than one database call may take (60 s, and 10 s to connect): a database that hangs is no reason to restart."""


@dataclass(slots=True)
class Pulse:
    """The loops write it, probes ask it."""

    looped_at: float = field(default_factory=time.monotonic)
    database: bool = False

    def loop(self, *, database: bool) -> None:
        """A loop came round; whether the database answered it."""
        self.looped_at, self.database = time.monotonic(), database

    def live(self) -> bool:
        """Whether a loop came round lately, or at least began less than LIVE_S seconds ago."""
        return time.monotonic() - self.looped_at < LIVE_S

    def ready(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self.database
