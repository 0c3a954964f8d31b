"""What every process can read off itself. A reading is a metric, its labels, and a number or a histogram."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentos.core.metrics import names
from agentos.core.metrics.names import Metric
from agentos.core.presence import package_version
from agentos.store.counts import Counter, Histogram, Histograms, Labels, counts


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure now. `labels`: their values, in the order of the metric."""

    metric: Metric
    value: float | Histogram
    labels: Labels = ()


def of_counter(metric: Metric, counter: Counter) -> Iterator[Reading]:
    """One for each set of labels; a counter without labels tells its 0, too."""
    if not metric.labels:
        yield Reading(metric, counter.by_labels.get((), 0))
        return
    for labels, value in list(counter.by_labels.items()):
        yield Reading(metric, value, labels)


def of_histograms(metric: Metric, histograms: Histograms) -> Iterator[Reading]:
    """One for each set of labels."""
    for labels, histogram in list(histograms.by_labels.items()):
        yield Reading(metric, histogram, labels)


def process_readings(role: str, *, connected: bool, loop_lag_s: float) -> Iterable[Reading]:
    """Of a worker and of a coordinator alike."""
    yield Reading(names.BUILD_INFO, 1, (package_version(), platform.python_version(), role))
    yield Reading(names.DATABASE_CONNECTED, connected)
    yield Reading(names.LOOP_LAG, loop_lag_s)
    yield from of_counter(names.DATABASE_OUTAGES, counts.outages)
    yield from of_counter(names.FENCED_WRITES, counts.fenced_writes)
