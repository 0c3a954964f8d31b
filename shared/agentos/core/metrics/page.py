"""The page that Prometheus reads. This module imports its client, and is itself imported at the first scrape: 1.3 MiB
and 40 ms that a worker nobody asks does not pay, and one that starts pays neither before its first claim.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from agentos.core.metrics.names import Metric
from agentos.core.metrics.readings import Reading
from agentos.store.counts import Histogram

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: dict[str, type[Family]] = {
    "counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily
}  # fmt: skip


class Page(Collector):
    """Text for `metrics`, as `read` finds them at each scrape, and the process_* figures of this process. A registry
    of its own: what the user's program tells Prometheus is told elsewhere.
    """

    def __init__(self, metrics: Iterable[Metric], read: Callable[[], Iterable[Reading]]) -> None:
        self._metrics = tuple(metrics)
        self._read = read
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def text(self) -> str:
        """In Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def describe(self) -> Iterable[Family]:
        """Their names are known without being read."""
        return [_family(metric) for metric in self._metrics]

    def collect(self) -> Iterable[Family]:
        """Called by the registry."""
        families = {metric: _family(metric) for metric in self._metrics}
        for reading in self._read():
            _add(families[reading.metric], reading)
        return families.values()


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.kind](metric.name, metric.meaning, labels=metric.labels)


def _add(family: Family, reading: Reading) -> None:
    if isinstance(reading.value, Histogram):
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101  as the metric says
        bounds = [*map(str, reading.value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(reading.value.counts), strict=True))
        family.add_metric(reading.labels, buckets, reading.value.total)
    else:
        assert not isinstance(family, HistogramMetricFamily)  # noqa: S101
        family.add_metric(reading.labels, float(reading.value))
