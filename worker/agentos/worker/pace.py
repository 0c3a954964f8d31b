"""How much a worker takes ahead of its slots: as many items as its handlers finished in the last 50 ms."""

from collections import deque

from agentos.core.process import monotonic

WINDOW_S = 0.05
"""What is prefetched waits about this long for its slot, at most: an idle worker elsewhere would start it sooner."""
MOST = 1000
CLAIM_MOST = 256
"""Items of one claim: with half as many no-ops drained a seventh slower, with 384 no faster. What is begun at once, and
so charged when the process dies, is three such claims at most."""
LOW = 128
"""A queue of prefetched items that is shorter is filled again before it is empty."""
FLUSH_ITEMS = 64
FLUSH_S = 0.005
"""While prefetched items keep the slots busy, completions gather until there are so many, or the first is so old."""


class Pace:
    """`limit`: never more than this; None: MOST. Handlers that take long finish nothing in the window, so nothing waits
    behind them.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = MOST if limit is None else limit
        self._finished: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._per_turn = 0.0

    def finished(self, count: int) -> None:
        """So many handlers have ended since the last turn."""
        self._finished.append((monotonic(), count))
        self._sum += count
        self._per_turn = max(count, self._per_turn * 0.8)

    @property
    def ahead(self) -> int:
        """How many items begin before the reply after next: those of this turn, and those of the one behind it. With
        those of this turn alone, handlers that are quicker than a reply stood still for every second one.
        """
        return min(int(2 * self._per_turn), 2 * CLAIM_MOST)

    @property
    def prefetch(self) -> int:
        """How many items to hold beyond those in slots."""
        horizon = monotonic() - WINDOW_S
        finished = self._finished
        while finished and finished[0][0] < horizon:
            self._sum -= finished.popleft()[1]
        return min(self._sum, self._limit)
