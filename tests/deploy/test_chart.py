"""What the chart renders: valid for Kubernetes, and held to a policy, whatever the values."""

from typing import Any

import psycopg
import pytest

from agentos.core.app import App
from agentos.store.calls import statistics
from agentos.store.connect import Database

pytest.importorskip(
    "helm_python",
    reason="no Helm engine here: make test-deploy installs one, if this platform has it",
    exc_type=ImportError,
)
kubernetes_validate: Any = pytest.importorskip("kubernetes_validate", reason="the same")

from tests.deploy.chart import (  # noqa: E402  after the look whether it can be rendered at all
    MANIFESTS,
    Object,
    Values,
    named,
    objects,
    of_kind,
    plain_manifests,
    pods,
    texts,
)

KUBERNETES = ("1.27", "1.34")
"""The oldest that Chart.yaml allows, and a new one."""
OF_OPERATORS = {"ServiceMonitor", "ScaledObject", "TriggerAuthentication"}

MATRIX: dict[str, Values] = {
    "no values": {},
    "a DSN for a trial": {"database": {"dsn": "postgresql://me:secret@db/agents"}},
    "secrets of one's own": {
        "database": {"existingSecret": "workers-dsn", "key": "url"},
        "migrate": {"existingSecret": "owner-dsn"},
        "coordinator": {"existingSecret": "coordinator-dsn"},
        "secrets": ["llm"],
    },
    "pools": {
        "image": {"repository": "registry.example/agentos", "tag": "1.4.2_rc-1"},
        "workerDefaults": {"settings": {"AGENTOS_POLL_S": 2}},
        "workers": {
            "default": None,
            "fast": {"concurrency": 32, "queues": ["mail", "web"], "listen": False, "graceSeconds": 0},
            "agents": {
                "image": {"repository": "mine", "digest": "sha256:" + "a" * 64}, "app": "my_agents:app", "replicas": 0,
                "graceSeconds": 900, "storage": {"existingClaim": "artifacts"}, "allowKinds": ["shell"],
                "nodeSelector": {"gpu": "true"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "low",
                "affinity": {"nodeAffinity": {}}, "podAnnotations": {"a": "b"}, "settings": {"AGENTOS_TTL_S": 30},
            },
        },
    },
    "everything on": {
        "workers": {"default": {"autoscaler": "hpa", "minReplicas": 2, "maxReplicas": 20}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "database": [{"ipBlock": {"cidr": "10.0.0.5/32"}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "workerEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"protocol": "TCP", "port": 443}]}],
        },
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "image": {"pullSecrets": ["registry"], "digest": "sha256:" + "b" * 64},
        "serviceAccount": {"annotations": {"role": "x"}},
    },
    "everything off": {
        "migrate": {"enabled": False}, "networkPolicy": {"enabled": False}, "runAsUser": None,
        "podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False},
    },
}  # fmt: skip


@pytest.fixture(params=MATRIX, ids=lambda name: name.replace(" ", "_"))
def found(request: pytest.FixtureRequest) -> list[Object]:
    """What the values of one row of the matrix render to."""
    return objects(MATRIX[request.param])


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_one_that_kubernetes_knows(found: list[Object], version: str) -> None:
    for each in found:
        if each["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(each, version, strict=True)


def test_objects_have_a_name_of_their_own_and_the_labels_of_the_release(found: list[Object]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
    for each in found:
        labels = each["metadata"]["labels"]
        assert each["metadata"]["namespace"] == "agentos"
        assert labels["app.kubernetes.io/instance"] == "agentos"
        assert len(labels["app.kubernetes.io/version"]) <= 63


# -- policy -----------------------------------------------------------------------------------------------------------


def containers(found: list[Object]) -> list[tuple[str, Object]]:
    return [(name, each) for name, pod in pods(found) for each in pod["spec"]["containers"]]


def test_pods_pass_the_restricted_standard(found: list[Object]) -> None:
    for name, pod in pods(found):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security.get("runAsUser", 65532) == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()
        assert {kind for volume in pod["spec"]["volumes"] for kind in volume} <= {
            "name", "emptyDir", "persistentVolumeClaim",
        }  # fmt: skip
    for name, container in containers(found):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }, name  # fmt: skip


def test_no_pod_has_a_token_of_the_cluster(found: list[Object]) -> None:
    assert [name for name, pod in pods(found) if pod["spec"]["automountServiceAccountToken"] is not False] == []
    assert [a for a in of_kind("ServiceAccount", found) if a["automountServiceAccountToken"] is not False] == []


def test_memory_and_disk_are_limited_and_cpu_is_not_throttled(found: list[Object]) -> None:
    for name, container in containers(found):
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}, name
        assert resources["limits"].keys() >= {"memory", "ephemeral-storage"}, name
        assert "cpu" not in resources["limits"], name
    for _, pod in pods(found):
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume)


def test_images_have_a_version(found: list[Object]) -> None:
    for name, container in containers(found):
        assert ":" in container["image"], name
        assert not container["image"].endswith(":latest"), name


def test_processes_answer_probes_and_what_migrates_ends(found: list[Object]) -> None:
    for each in of_kind("Deployment", found):
        (container,) = each["spec"]["template"]["spec"]["containers"]
        paths = {
            probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        assert {"name": "AGENTOS_HEALTH_PORT", "value": str(container["ports"][0]["containerPort"])} in container["env"]
    for job in of_kind("Job", found):
        assert job["spec"]["activeDeadlineSeconds"] > 0
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"


def test_the_grace_of_a_pod_is_longer_than_that_of_its_worker(found: list[Object]) -> None:
    workers = [each for each in of_kind("Deployment", found) if "-worker-" in each["metadata"]["name"]]
    assert workers
    for each in workers:
        spec = each["spec"]["template"]["spec"]
        (grace,) = [arg for arg in spec["containers"][0]["args"] if arg.startswith("--grace=")]
        assert spec["terminationGracePeriodSeconds"] >= int(grace.removeprefix("--grace=")) + 10


def test_a_rolling_update_takes_nothing_away_before_the_new_one_is_ready(found: list[Object]) -> None:
    for each in of_kind("Deployment", found):
        assert each["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        keys = [one["topologyKey"] for one in each["spec"]["template"]["spec"]["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_selectors_find_their_pods_and_no_others(found: list[Object]) -> None:
    templates = [pod["metadata"]["labels"] for _, pod in pods(found)]
    for each in of_kind("Deployment", found) + of_kind("PodDisruptionBudget", found):
        wanted = each["spec"]["selector"]["matchLabels"].items()
        assert len([labels for labels in templates if wanted <= labels.items()]) == 1, each["metadata"]["name"]


def test_the_network_policy_holds_every_pod_and_denies_both_ways(found: list[Object]) -> None:
    policies = of_kind("NetworkPolicy", found)
    for one in policies[:1]:
        assert one["spec"]["policyTypes"] == ["Ingress", "Egress"]
        selector = one["spec"]["podSelector"]["matchLabels"].items()
        assert all(selector <= pod["metadata"]["labels"].items() for _, pod in pods(found))
        assert {port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]} == {53, 5432}


def test_no_password_is_in_anything_but_a_secret(found: list[Object]) -> None:
    others = [each for each in found if each["kind"] != "Secret"]
    assert "secret@db" not in str(others)
    for name, container in containers(found):
        (dsn,) = [each for each in container["env"] if each["name"] == "AGENTOS_DSN"]
        assert dsn["valueFrom"]["secretKeyRef"], name


# -- what single values do --------------------------------------------------------------------------------------------


def worker(name: str, values: Values) -> Object:
    spec: Object = named("Deployment", f"agentos-worker-{name}", objects(values))["spec"]
    return spec


def test_each_pool_is_a_deployment_with_its_own_values_over_the_common_ones() -> None:
    values = MATRIX["pools"]
    names = {each["metadata"]["name"] for each in of_kind("Deployment", objects(values))}
    assert names == {"agentos-coordinator", "agentos-worker-fast", "agentos-worker-agents"}
    agents, fast = worker("agents", values), worker("fast", values)
    (container,) = agents["template"]["spec"]["containers"]
    assert (agents["replicas"], container["image"]) == (0, "mine@sha256:" + "a" * 64)
    assert container["args"] == [
        "--concurrency=8", "--grace=900", "--app=my_agents:app", "--queue=default", "--allow-kind=shell",
    ]  # fmt: skip
    assert {"name": "AGENTOS_TTL_S", "value": "30"} in container["env"]
    assert {"name": "AGENTOS_POLL_S", "value": "2"} in container["env"]
    assert agents["template"]["spec"]["terminationGracePeriodSeconds"] == 915
    (container,) = fast["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/agentos:1.4.2_rc-1"
    assert container["args"] == ["--concurrency=32", "--grace=0", "--queue=mail", "--queue=web", "--no-listen"]


def secret_of(pod: Object) -> tuple[str, str]:
    (dsn,) = [
        each["valueFrom"]["secretKeyRef"] for each in pod["containers"][0]["env"] if each["name"] == "AGENTOS_DSN"
    ]
    return dsn["name"], dsn["key"]


def test_each_part_can_have_a_role_of_its_own() -> None:
    found = {name: secret_of(pod["spec"]) for name, pod in pods(objects(MATRIX["secrets of one's own"]))}
    assert found == {
        "agentos-coordinator": ("coordinator-dsn", "dsn"),
        "agentos-migrate-0-1-0": ("owner-dsn", "dsn"),
        "agentos-worker-default": ("workers-dsn", "url"),
    }


def test_a_first_install_can_migrate_before_anything_of_the_release_is_there() -> None:
    """Hooks run before ordinary objects are made: what the Job refers to has to be a hook too, or exist before."""
    found = objects(MATRIX["a DSN for a trial"])
    hooks = [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    (job,) = of_kind("Job", hooks)
    (secret,) = of_kind("Secret", hooks)
    assert secret_of(job["spec"]["template"]["spec"]) == (secret["metadata"]["name"], "dsn")
    weights = [int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in (secret, job)]
    assert weights == sorted(set(weights))
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "default"
    assert "envFrom" not in job["spec"]["template"]["spec"]["containers"][0]


def test_the_migration_has_the_settings_too() -> None:
    """Such as which schema, and whether plain text is allowed; the ConfigMap is not there yet at a first install."""
    found = objects({"settings": {"AGENTOS_SCHEMA": "other", "AGENTOS_ALLOW_PLAINTEXT": True}})
    env = named("Job", "agentos-migrate-0-1-0", found)["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {each["name"]: each.get("value") for each in env}
    assert (given["AGENTOS_SCHEMA"], given["AGENTOS_ALLOW_PLAINTEXT"]) == ("other", "true")


def test_a_change_of_settings_rolls_the_pods() -> None:
    def sums(values: Values) -> list[str]:
        return [
            each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
            for each in of_kind("Deployment", objects(values))
        ]

    assert not set(sums({})) & set(sums({"settings": {"AGENTOS_TTL_S": 30}}))


def test_two_releases_share_a_namespace() -> None:
    one, two = objects(release="agentos"), objects(release="second")
    names = [{(each["kind"], each["metadata"]["name"]) for each in found} for found in (one, two)]
    assert not names[0] & names[1]


def test_the_service_monitor_finds_the_port_that_the_processes_serve() -> None:
    found = objects(MATRIX["everything on"])
    (monitor,) = of_kind("ServiceMonitor", found)
    services = of_kind("Service", found)
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= service["metadata"]["labels"].items() for service in services)
    assert {service["spec"]["ports"][0]["name"] for service in services} == {monitor["spec"]["endpoints"][0]["port"]}
    selected = [
        name for name, pod in pods(found) for service in services
        if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    ]  # fmt: skip
    assert selected == ["agentos-coordinator", "agentos-worker-default"]


def test_an_autoscaled_pool_has_one_scaler_and_no_count_that_fights_it() -> None:
    found = objects({"workers": {"default": {"autoscaler": "hpa", "concurrency": 10}, "fixed": {"replicas": 3}}})
    (scaler,) = of_kind("HorizontalPodAutoscaler", found)
    assert scaler["spec"]["scaleTargetRef"]["name"] == "agentos-worker-default"
    assert scaler["spec"]["metrics"][0]["pods"] == {
        "metric": {"name": "agentos_running_attempts"}, "target": {"type": "AverageValue", "averageValue": "8"},
    }  # fmt: skip
    assert "replicas" not in named("Deployment", "agentos-worker-default", found)["spec"]
    assert named("Deployment", "agentos-worker-fixed", found)["spec"]["replicas"] == 3


def test_keda_asks_the_backlog_of_the_pools_queues() -> None:
    values: Values = {
        "workers": {"default": {"autoscaler": "keda", "queues": ["mail", "it's"], "concurrency": 4, "minReplicas": 0}},
        "keda": {"existingSecret": "reader"},
    }
    found = objects(values)
    (scaled,), (login,) = of_kind("ScaledObject", found), of_kind("TriggerAuthentication", found)
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"] == {
        "query": "SELECT agentos.backlog('mail') + agentos.backlog('it''s')", "targetQueryValue": "4",
    }  # fmt: skip
    assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
    assert login["spec"]["secretTargetRef"] == [{"parameter": "connection", "name": "reader", "key": "dsn"}]
    assert scaled["spec"]["scaleTargetRef"] == {"name": "agentos-worker-default"}
    assert scaled["spec"]["minReplicaCount"] == 0
    assert "replicas" not in named("Deployment", "agentos-worker-default", found)["spec"]
    assert of_kind("HorizontalPodAutoscaler", found) == []


def test_the_query_of_keda_runs(db: Database, conn: psycopg.Connection[Any]) -> None:
    """On a real database: one number of items once somebody counted, an error before."""
    (scaled,) = of_kind("ScaledObject", objects({"workers": {"default": {"autoscaler": "keda"}}}))
    query = scaled["spec"]["triggers"][0]["metadata"]["query"].encode()
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query)
    assert caught.value.sqlstate == "AG060"
    App().submit("llm", {"prompt": "a"})
    db.run(statistics.take_statistics(10))
    assert conn.execute(query).fetchone() == (1,)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "create secret generic agentos-database"),
        ({"database": {"dsn": "postgresql://x@y/z"}}, "in the record of this release"),
        ({"migrate": {"enabled": False}}, "run `agentos migrate`"),
        ({}, "networkPolicy.workerEgress"),
    ],
)
def test_the_notes_say_what_is_left_to_do(values: Values, said: str) -> None:
    assert said in texts(values)["NOTES.txt"]


def test_the_plain_manifests_are_those_of_the_chart() -> None:
    assert MANIFESTS.read_text("utf-8") == plain_manifests(), "run: make manifests"
