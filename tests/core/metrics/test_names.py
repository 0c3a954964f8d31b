"""Every metric is told by a process of its kind, and listed in docs/metrics.md with its type and labels."""

import re
from pathlib import Path

from agentos.core.metrics.names import METRICS, Metric
from agentos.core.metrics.page import Page
from agentos.core.metrics.readings import Reading
from agentos.store.counts import MOST_SERIES, OTHER, Counter, Histogram, Histograms

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(agentos_\w+)` \| (\w+) \| (.*?) \| (.+?) \|$", re.MULTILINE)


def row(metric: Metric) -> tuple[str, str, str, str]:
    name = metric.name + ("_total" if metric.kind == "counter" else "")
    return name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning


def test_the_page_lists_every_metric_as_it_is() -> None:
    assert [tuple(cell.strip() for cell in found) for found in ROW.findall(PAGE.read_text())] == [
        row(metric) for metric in METRICS
    ]


def test_names_follow_the_conventions_of_prometheus() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"agentos_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total")  # a counter gets it
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels)


def test_a_histogram_is_told_with_cumulative_buckets() -> None:
    metric = Metric("agentos_claim_seconds", "histogram", "a claim")
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    lines = Page([metric], lambda: [Reading(metric, histogram)]).text().splitlines()
    assert [line for line in lines if line.startswith("agentos_claim")] == [
        'agentos_claim_seconds_bucket{le="0.1"} 2.0',
        'agentos_claim_seconds_bucket{le="1.0"} 3.0',
        'agentos_claim_seconds_bucket{le="+Inf"} 4.0',
        "agentos_claim_seconds_count 4.0",
        "agentos_claim_seconds_sum 7.65",
    ]


def test_names_that_handlers_make_up_do_not_grow_without_end() -> None:
    counter, histograms = Counter(), Histograms((1.0,))
    for n in range(MOST_SERIES + 50):
        counter.add(f"tool-{n}", "executed")
        histograms.observe(0.5, f"kind-{n}", "completed")
    assert len(counter.by_labels) == len(histograms.by_labels) == MOST_SERIES + 1
    assert counter.by_labels[OTHER, OTHER] == sum(histograms.by_labels[OTHER, OTHER].counts) == 50
