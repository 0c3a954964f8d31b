"""Whose turn it is: an order of lanes that is fair to their tenants by weight.

Each tenant has a virtual time, which an item taken moves on by one over its weight; who is behind comes first. So a
tenant with one item waits for one claim of this worker, however much others have ready. A lane that was empty when it
was looked at is cold: of those a claim looks at COLD_MOST, in rotation, because an empty lane costs it an index look.
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from agentos.store.calls.flow import ServedLane
from agentos.store.calls.items import ClaimedItem

COLD_MOST = 128
"""With 1,000 lanes each is looked at by every eighth claim at least."""
WARM_MOST = 64


class Fair:
    """The lanes of one worker, in an order for each of its claims."""

    def __init__(self) -> None:
        self._tenant: dict[int, str] = {}
        self._weight: dict[str, float] = {}
        self._time: dict[str, float] = {}
        self._now = 0.0
        self._warm: set[int] = set()
        self._cold: dict[int, None] = {}
        self._look_at_all = True

    def __bool__(self) -> bool:
        return bool(self._tenant)

    @property
    def _plain(self) -> bool:
        """Few lanes, and of one tenant or none: any order is fair."""
        return len(self._weight) <= 1 and len(self._tenant) <= COLD_MOST

    @property
    def lanes(self) -> list[int]:
        """All of them."""
        return list(self._tenant)

    def serve(self, lanes: Sequence[ServedLane]) -> None:
        """Serve these from now on. What is new is looked at first."""
        self._tenant = {each.lane: each.tenant for each in lanes}
        self._weight = {each.tenant: each.weight for each in lanes}
        self._time = {tenant: self._time.get(tenant, self._now) for tenant in self._weight}
        self._warm &= self._tenant.keys()
        new = [lane for lane in self._tenant if lane not in self._warm and lane not in self._cold]
        random.shuffle(new)
        self._cold = dict.fromkeys([*new, *(lane for lane in self._cold if lane in self._tenant)])

    def order(self) -> list[int]:
        """The lanes to claim from, in this order."""
        if self._plain:
            lanes = self.lanes
            random.shuffle(lanes)
            return lanes
        if self._look_at_all:
            return sorted(self._tenant, key=self._behind)
        cold = list(islice(self._cold, COLD_MOST))
        for lane in cold:
            self._cold[lane] = self._cold.pop(lane)
        return sorted([*cold, *sorted(self._warm, key=self._behind)[:WARM_MOST]], key=self._behind)

    def _behind(self, lane: int) -> tuple[float, float]:
        return self._time[self._tenant[lane]], random.random()

    def claimed(self, asked: Sequence[int], items: Sequence[ClaimedItem], *, full: bool) -> None:
        """A claim that was to look at `asked` got these. `full`: as many as it wanted."""
        self._look_at_all = not full
        if self._plain:
            return
        counts = Counter(item.lane for item in items)
        for lane, n in counts.items():
            tenant = self._tenant.get(lane)
            if tenant is not None:
                self._now = max(self._now, self._time[tenant])
                self._time[tenant] = max(self._time[tenant], self._now) + n / self._weight[tenant]
        last = max((at for at, lane in enumerate(asked) if lane in counts), default=-1) if full else len(asked) - 1
        for lane in asked[: last + 1]:
            if lane not in self._tenant:
                continue
            if lane in counts:
                self._warm.add(lane)
                self._cold.pop(lane, None)
            elif lane in self._warm:
                self._warm.discard(lane)
                self._cold[lane] = None
