"""The chart, rendered by Helm's own engine; and what a policy asks of what came out."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "agentos"
MANIFESTS = ROOT / "deploy" / "kubernetes" / "agentos.yaml"
RELEASE = NAMESPACE = "agentos"

Values = dict[str, Any]
Object = dict[str, Any]

FIRST = ("ServiceAccount", "ConfigMap", "Secret", "NetworkPolicy", "PodDisruptionBudget", "Service", "Job")
"""What `kubectl apply` should have made before the Deployments."""


def texts(values: Values | None = None, *, release: str = RELEASE) -> dict[str, str]:
    """Template to text. Raises helm_python.HelmError: if the schema or the chart refuses the values."""
    return _texts(json.dumps(values or {}), release)


@cache
def _texts(values: str, release: str) -> dict[str, str]:
    import helm_python  # noqa: PLC0415  of the group deploy: who only collects tests has not installed it

    with helm_python.Chart.load(str(CHART)) as chart:
        given = json.loads(values)
        chart.validate_schema(given)
        rendered = chart.render(given, name=release, namespace=NAMESPACE)
    return {name.removeprefix("agentos/templates/"): text for name, text in rendered.items()}


def documents(rendered: dict[str, str]) -> Iterator[tuple[str, Object]]:
    """Text and object of every manifest."""
    for name, text in rendered.items():
        if name.endswith(".yaml"):
            for document in text.split("\n---\n"):
                if found := yaml.safe_load(document):
                    yield document.strip().removeprefix("---\n"), found


def objects(values: Values | None = None, *, release: str = RELEASE) -> list[Object]:
    """Every object that a release with these values has."""
    return [found for _, found in documents(texts(values, release=release))]


def of_kind(kind: str, found: list[Object]) -> list[Object]:
    """Those of one kind."""
    return [each for each in found if each["kind"] == kind]


def named(kind: str, name: str, found: list[Object]) -> Object:
    """The one of a kind with this name."""
    (one,) = [each for each in of_kind(kind, found) if each["metadata"]["name"] == name]
    return one


def pods(found: list[Object]) -> list[tuple[str, Object]]:
    """Name and template of everything that starts pods."""
    return [
        (each["metadata"]["name"], each["spec"]["template"]) for each in found if "template" in each.get("spec", {})
    ]


def plain_manifests() -> str:
    """deploy/kubernetes/agentos.yaml, as the chart renders it without values."""
    found = sorted(documents(texts()), key=lambda one: (_order(one[1]), one[1]["kind"], one[1]["metadata"]["name"]))
    head = "# Rendered from deploy/helm/agentos by `make manifests`. Change the chart, not this file.\n"
    return head + "".join(f"---\n{text}\n" for text, _ in found)


def _order(one: Object) -> int:
    return FIRST.index(one["kind"]) if one["kind"] in FIRST else len(FIRST)
