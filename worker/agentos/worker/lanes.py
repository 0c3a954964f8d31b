"""What a worker may claim from: found when it starts, and again when it is told or may suppose that it has changed.

A new lane (the first item of a tenant) is found at the next poll of a worker that has nothing to do, at once when that
is woken, within WOKEN_S of its wake-up by a worker that is busy, or within BUSY_S without one. Limits and pauses are
told by the claim itself, which is refused (`LanesChanged`). Claims cost nothing for it.
"""

import random

from agentos.core.process import monotonic
from agentos.store.calls import flow
from agentos.store.connect import AsyncDatabase
from agentos.worker.fair import Fair

WOKEN_S = 0.1
BUSY_S = 1.0
SOLO_S = 0.25
"""How often a busy worker looks for work that must run alone: with many tenants a look is a tenth of its turn."""
SOLO_MOST = 192
"""Of more lanes than this, what crashed its process is found by the second claim or the tenth instead of the first."""


class Lanes:
    """The lanes of one worker: `limited` ones are claimed by a function of their own."""

    def __init__(self, db: AsyncDatabase) -> None:
        self._db = db
        self._what: tuple[tuple[str, ...], list[str], list[int]] = ((), [], [])
        self.alone = False
        self.free = Fair()
        self.limited = Fair()
        self._solo: list[int] = []
        self.newest = 0
        self.looks = 0
        self.unlimited: list[int] = []
        self.woken = False
        self.idle = False
        self._looked_at = monotonic()
        self._solo_at = 0.0

    async def serve(self, queues: tuple[str, ...], kinds: list[str], versions: list[int], *, solo: bool) -> None:
        """Serve these; `solo`: only what must run alone."""
        self._what, self.alone = (queues, kinds, versions), solo
        await self.look()

    @property
    def solo(self) -> list[int]:
        """The lanes of what must run alone, which solo processes claim from: of a look, some of them at random."""
        return self._solo if len(self._solo) <= SOLO_MOST else random.sample(self._solo, SOLO_MOST)

    def solo_while_busy(self) -> list[int]:
        """The same, when it is time to look; else none."""
        if monotonic() - self._solo_at < SOLO_S:
            return []
        self._solo_at = monotonic()
        return self.solo

    @property
    def served(self) -> list[int]:
        """All lanes that are served here or by the solo processes of this worker."""
        return [-lane for lane in self._solo]

    async def look(self) -> None:
        """Ask anew. After the claim epoch is known: what is set later then raises it again."""
        self._looked_at, self.woken = monotonic(), False
        served = await self._db.run(flow.served_lanes(*self._what))
        sign = -1 if self.alone else 1
        lanes = [flow.ServedLane(sign * each.lane, each.tenant, each.weight, each.limited) for each in served.lanes]
        random.shuffle(lanes)
        self.free.serve([each for each in lanes if not each.limited])
        self.unlimited = [each.lane for each in lanes if not each.limited]
        self.looks += 1
        self.limited.serve([each for each in lanes if each.limited])
        self._solo = [] if self.alone else [-each.lane for each in lanes]
        self.newest = served.newest

    async def look_if_new(self, *, at_once: bool = False) -> bool:
        """If it is time to, see whether there is a newer lane. The claim of an idle worker does that by itself, unless
        it has just been woken: what it was woken for may be in a lane that it does not know.
        """
        if not at_once and monotonic() - self._looked_at < (WOKEN_S if self.woken else BUSY_S):
            return False
        self._looked_at, self.woken = monotonic(), False
        if await self._db.run(flow.newest_lane()) <= self.newest:
            return False
        await self.look()
        return True
