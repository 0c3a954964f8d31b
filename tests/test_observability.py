"""deploy/observability: a dashboard and alerts that ask for nothing that is not there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentos.core.metrics.names import METRICS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "observability"
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())

ADDED = {"instance", "job"}  # by whoever scrapes
LABELS = {
    sample: {*metric.labels, *ADDED, *({"le"} if sample.endswith("_bucket") else ())}
    for metric in METRICS for sample in metric.sample_names
} | {"process_resident_memory_bytes": ADDED}  # fmt: skip
FUNCTIONS = {
    "abs", "absent", "avg", "count", "histogram_quantile", "increase", "label_values", "max", "min", "rate", "sum",
}  # fmt: skip
WORDS = {"and", "bool", "by", "on", "or", "unless", "without"}
TOKEN = re.compile(
    r"""\s*(?:(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>\d+(?:\.\d+)?)|(?P<text>"(?:[^"\\]|\\.)*")
        |(?P<range>\[(?:\d+[smhd]|\$__rate_interval)\])|(?P<mark>=~|!~|!=|==|>=|<=|[-+*/%(){},=<>]))""",
    re.VERBOSE,
)


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Sort and text of each. Raises AssertionError: if it is no PromQL that this knows."""
    at = 0
    expression = expression.strip()
    while at < len(expression):
        found = TOKEN.match(expression, at)
        assert found, f"{expression!r} cannot be read from {expression[at:]!r}"
        yield str(found.lastgroup), found[found.lastgroup or 0]
        at = found.end()


def check(expression: str) -> set[str]:
    """The metrics it asks for. Their names and labels exist, rates are of counters, brackets are closed."""
    found = list(tokens(expression))
    metrics: set[str] = set()
    grouped: list[set[str]] = []
    opened: list[str] = []
    for at, (sort, text) in enumerate(found):
        before = found[at - 1][1] if at else ""
        after = found[at + 1][1] if at + 1 < len(found) else ""
        if text in "({":
            opened.append(text + (before if before in ("by", "without") else ""))
        elif text in ")}":
            assert opened, expression
            assert opened.pop()[0] == {")": "(", "}": "{"}[text], expression
        if sort == "range":
            name = next(text for sort, text in reversed(found[:at]) if sort == "name" and text in LABELS)
            assert name.endswith(("_total", "_bucket", "_sum", "_count")), f"a rate of {name}: {expression}"
        if sort != "name" or text in WORDS:
            continue
        if opened and opened[-1] in ("(by", "(without"):
            grouped.append({text})
        elif opened and opened[-1] == "{":
            name = next(text for sort, text in reversed(found[:at]) if sort == "name" and text in LABELS)
            assert text in LABELS[name], f"{name} has no label {text}: {expression}"
        elif after == "(" or after in ("by", "without"):
            assert text in FUNCTIONS, f"{text} is no function that this knows: {expression}"
        else:
            assert text in LABELS, f"there is no metric {text}: {expression}"
            metrics.add(text)
    assert not opened, expression
    for labels in grouped:
        assert all(labels <= LABELS[name] for name in metrics), f"not every metric has {labels}: {expression}"
    return metrics


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_is_there_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Agentos[A-Z]\w+", rule["alert"])
    metrics = check(rule["expr"])
    assert metrics
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("page", "warn")
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in re.split(r",\s*", group)}
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= grouped
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def promtool(rules: Path) -> "subprocess.CompletedProcess[str]":
    """What Prometheus' own parser says."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: package prometheus)")
    return subprocess.run(["promtool", "check", "rules", str(rules)], check=False, capture_output=True, text=True)


def test_prometheus_itself_takes_the_rules() -> None:
    said = promtool(FOLDER / "alerts.yaml")
    assert said.returncode == 0, said.stderr
    assert f"{len(RULES)} rules found" in said.stdout


def test_prometheus_itself_would_refuse_a_rule_that_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "alerts.yaml"
    wrong.write_text(
        (FOLDER / "alerts.yaml").read_text().replace("sum(agentos_leading) < 1", "sum(agentos_leading <", 1)
    )
    assert promtool(wrong).returncode != 0


def test_no_alert_is_there_twice() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 15


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_is_there(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        metrics = check(target["expr"])
        known = set.union(*(LABELS[name] for name in metrics))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known
        assert target["datasource"]["uid"] == "${datasource}"


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y) for panel in DASHBOARD["panels"] for grid in (panel["gridPos"],)
        for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
    ]  # fmt: skip
    assert len(set(cells)) == len(cells), "no panel lies on another"
    assert max(x for x, _ in cells) < 24
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r'"\$\{?(\w+)', json.dumps([panel["targets"] for panel in panels()]).replace('\\"', '"')))
    assert used - {"__rate_interval"} <= variables
    for each in DASHBOARD["templating"]["list"]:
        if each["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["definition"]).groups()  # type: ignore[union-attr]
            assert label in LABELS[metric]


def test_the_dashboard_shows_every_metric_that_says_how_the_pool_is() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in check(target["expr"])}
    asked = {name for rule in RULES for name in check(rule["expr"])}
    hidden = {metric.name for metric in METRICS if not shown & set(metric.sample_names)}
    assert hidden <= {"agentos_claimed_items", "agentos_handed_items"}
    assert asked <= shown | {"agentos_claim_seconds_bucket"}


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(agentos_nothing)", "sum(agentos_slots", "rate(agentos_slots[5m])", 'agentos_items{colour="red"}',
        "sum by (colour) (agentos_items)", "agentos_slots ~ 1", "sums(agentos_slots)", "sum by (kind) (agentos_slots)",
    ],
)  # fmt: skip
def test_the_check_can_fail(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
