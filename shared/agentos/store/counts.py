"""What this process has counted since it started: plain numbers in memory, which cost an addition each.

Whoever serves metrics reads them when it is asked; nothing here knows how they are told.
"""

import threading
from bisect import bisect_left

Labels = tuple[str, ...]

ROUND_TRIP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds, in seconds, of what waits for the database."""
WORK_S = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Upper bounds, in seconds, of what a handler takes."""
MOST_SERIES = 200
OTHER = "other"
"""What the labels are called that come after so many: names that a handler makes up must not fill a memory."""


class Histogram:
    """How many observations were at most each bound, and their sum. `counts` has one place more than `bounds`."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more, in seconds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histograms:
    """One for each set of labels."""

    __slots__ = ("_bounds", "by_labels")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.by_labels: dict[Labels, Histogram] = {}

    def observe(self, value: float, *labels: str) -> None:
        """One more, in seconds; from one thread. Written out: once for every attempt there is."""
        found = self.by_labels.get(labels) or self._new(labels)
        found.counts[bisect_left(found.bounds, value)] += 1
        found.total += value

    def _new(self, labels: Labels) -> Histogram:
        key = labels if len(self.by_labels) < MOST_SERIES else (OTHER,) * len(labels)
        return self.by_labels.setdefault(key, Histogram(self._bounds))


class Counter:
    """A count for each set of labels; from any thread."""

    __slots__ = ("_lock", "by_labels")

    def __init__(self) -> None:
        self.by_labels: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        """So many more."""
        with self._lock:
            if labels not in self.by_labels and len(self.by_labels) >= MOST_SERIES:
                labels = (OTHER,) * len(labels)
            self.by_labels[labels] = self.by_labels.get(labels, 0) + amount


class Counts:
    """All of one process."""

    def __init__(self) -> None:
        self.claimed_items = 0
        self.handed_items = 0
        self.claims = Histogram(ROUND_TRIP_S)
        self.completions = Histogram(ROUND_TRIP_S)
        self.checkpoints = Histogram(ROUND_TRIP_S)
        self.attempts = Histograms(WORK_S)
        self.fenced_writes = Counter()
        self.tool_calls = Counter()
        self.llm_calls = Counter()
        self.llm_tokens = Counter()
        self.outages = Counter()
        self.deaths = Counter()
        self.reclaims = Counter()
        self.retired = Counter()
        self.duties = Histograms(ROUND_TRIP_S)


counts = Counts()
