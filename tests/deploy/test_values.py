"""What the chart refuses, and in which words; its values against what agentos itself knows."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

helm: Any = pytest.importorskip(
    "helm_python", reason="no Helm engine here: make test-deploy installs one, if this platform has it"
)

from tests.deploy.chart import CHART, ROOT, Values, objects  # noqa: E402  as in test_chart

from agentos.store.settings import Settings  # noqa: E402

REFUSED: list[tuple[Values, str]] = [
    ({"replicas": 3}, "replicas"),
    ({"coordinator": {"replica": 3}}, "replica"),
    ({"workers": {"Fast_1": {}}}, "Fast_1"),
    ({"workers": {"a": {"concurency": 4}}}, "concurency"),
    ({"workers": {"a": {"concurrency": "8"}}}, "/workers/a/concurrency"),
    ({"workers": {"a": {"concurrency": 0}}}, "minimum"),
    ({"workers": {"a": {"queues": []}}}, "/workers/a/queues"),
    ({"workers": {"a": {"app": "my_agents"}}}, "/workers/a/app"),
    ({"workers": {"a": {"graceSeconds": -1}}}, "/workers/a/graceSeconds"),
    ({"workers": {"a": {"autoscaler": ["hpa", "keda"]}}}, "/workers/a/autoscaler"),
    ({"workers": {"a": {"autoscaler": "vpa"}}}, "'none', 'hpa', 'keda'"),
    ({"workers": {"a": {"minReplicas": 5, "maxReplicas": 2}}}, "minReplicas 5 is more than maxReplicas 2"),
    ({"workers": {"a": {"resources": {"limits": {"memory": "lots"}}}}}, "/workers/a/resources/limits/memory"),
    ({"database": {"dsn": "mysql://x"}}, "/database/dsn"),
    ({"database": {"dsn": "postgresql://x@y/z", "existingSecret": "s"}}, "existingSecret or dsn, not both"),
    ({"database": {"port": 70000}}, "/database/port"),
    ({"settings": {"TTL": 3}}, "TTL"),
    ({"settings": {"AGENTOS_DSN": "postgresql://x@y/z"}}, "settings.AGENTOS_DSN: use database.existingSecret"),
    ({"settings": {"AGENTOS_LLM_API_KEY": "sk"}}, "a Secret named in secrets"),
    ({"workers": {"a": {"settings": {"AGENTOS_GRACE_S": 3}}}}, "workers.a.settings.AGENTOS_GRACE_S: use graceSeconds"),
    ({"image": {"tag": "latest"}}, "latest is no version"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"workers": {"a": {"image": {"repository": "mine", "tag": "latest"}}}}, "workers.a.image.tag: latest"),
    ({"runAsUser": 0}, "/runAsUser"),
    ({"securityContext": {"privileged": True}}, "securityContext"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"), REFUSED, ids=lambda each: json.dumps(each) if isinstance(each, dict) else ""
)
def test_wrong_values_are_refused_with_their_place(values: Values, said: str) -> None:
    with pytest.raises(helm.HelmError) as caught:
        objects(values)
    assert said in str(caught.value)


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [each for each in found["messages"] if "icon" not in each["error"]] == []


def test_the_version_of_the_chart_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert schema["properties"].keys() - {"global"} == values.keys()
    assert schema["$defs"]["pool"]["properties"].keys() == values["workerDefaults"].keys()
    for name, each in schema["properties"].items():
        if "properties" in each:
            assert each["properties"].keys() == values[name].keys(), name


def test_the_metric_that_an_hpa_asks_for_is_one_of_agentos() -> None:
    metric = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["hpa"]["metric"]
    assert f"| `{metric}` |" in (ROOT / "docs" / "metrics.md").read_text("utf-8")  # which a test holds to the code


def test_the_settings_that_the_chart_names_exist() -> None:
    named = re.findall(
        r"AGENTOS_([A-Z_]+[A-Z])\b", "".join(f.read_text("utf-8") for f in CHART.rglob("*") if f.is_file())
    )
    assert {name.lower() for name in named} <= Settings.model_fields.keys() | {"schema"}
