"""What a health port told, read by Prometheus' own parser."""

import urllib.request
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One scrape. `families`: type by name; `samples`: value by name and labels."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, str] = {}
        self.labels: dict[str, set[str]] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            self.families[family.name] = family.type
            for sample in family.samples:
                self.labels.setdefault(family.name, set()).update(sample.labels)
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample that has these labels."""
        found = self.all(name, labels.items())
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def total(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels; 0: there is none."""
        return sum(self.all(name, labels.items()))

    def all(self, name: str, labels: Iterable[tuple[str, str]]) -> list[float]:
        """Values of the samples that have these labels."""
        return [value for (known, its), value in self.samples.items() if known == name and its.issuperset(labels)]


def scrape(port: int) -> Scrape:
    """What it tells now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scrape(reply.read().decode())
