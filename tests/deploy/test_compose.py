"""compose.yaml: what it asks of the engine, and the rehearsal of docs/operations.md, step by step."""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.coordinator.daemon import until
from tests.deploy.engine import IMAGE, NEXT, POSTGRES, ROOT, build_next, docker

FILE = ROOT / "deploy" / "compose.yaml"
OURS = ("migrate", "coordinator", "worker")

pytestmark = pytest.mark.timeout(600)


def client() -> list[str] | None:
    """`docker compose`, the older `docker-compose`, or None."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            continue
    return None


class Project:
    """The pool of the file under a name of its own; `image` is what ours run."""

    def __init__(self, command: list[str]) -> None:
        self.name = f"agentos-{uuid.uuid4().hex[:8]}"
        self.image = IMAGE
        self._command = [*command, "--project-name", self.name, "--file", str(FILE)]

    def __call__(self, *args: str, timeout_s: float = 240) -> str:
        """Run a command of compose; its stdout."""
        env = {**os.environ, "AGENTOS_IMAGE": self.image, "AGENTOS_POSTGRES_IMAGE": POSTGRES}
        ran = subprocess.run(
            [*self._command, *args], capture_output=True, text=True, env=env, timeout=timeout_s, check=False
        )  # fmt: skip
        assert ran.returncode == 0, f"{args}: {ran.stderr[-3000:]}"
        return ran.stdout

    def containers(self, service: str) -> list[str]:
        """Names of the containers of a service that run."""
        wanted = [f"label=com.docker.compose.{k}={v}" for k, v in {"project": self.name, "service": service}.items()]
        return docker("ps", "--format={{.Names}}", *(f"--filter={each}" for each in wanted)).splitlines()

    def image_of(self, container: str) -> str:
        """What it runs."""
        return docker("inspect", "--format={{.Config.Image}}", container)


@pytest.fixture
def project(image: None) -> Iterator[Project]:
    """Nothing of it outlives the test."""
    command = client()
    if command is None:
        pytest.skip("no compose here: neither `docker compose` nor docker-compose")
    started = Project(command)
    yield started
    started("down", "--volumes", "--timeout", "2")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    return found


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_restricted(services: dict[str, Any], name: str) -> None:
    found = services[name]
    assert (found["user"], found["read_only"], found["cap_drop"]) == ("65532:65532", True, ["ALL"])
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "ports" not in found


def test_processes_have_a_health_check_and_more_time_than_they_need_to_drain(services: dict[str, Any]) -> None:
    for name in ("postgres", "coordinator", "worker"):
        assert "test" in services[name]["healthcheck"], name
        assert "stop_grace_period" in services[name], name
    (grace,) = [arg for arg in services["worker"]["command"] if arg.startswith("--grace=")]
    assert int(services["worker"]["stop_grace_period"].rstrip("s")) >= int(grace.removeprefix("--grace=")) + 10
    assert (services["coordinator"]["scale"], services["worker"]["scale"]) == (2, 2)


def test_its_only_password_is_a_default_that_says_so() -> None:
    said = re.findall(r"PASSWORD:?-?([\w-]*)", FILE.read_text("utf-8"))
    assert {each for each in said if each and each != "is"} == {"only-for-development"}


def test_the_rehearsal_of_the_page(project: Project) -> None:
    build_next()
    project("up", "--detach")
    workers, coordinators = project.containers("worker"), project.containers("coordinator")
    assert (len(workers), len(coordinators)) == (2, 2)
    for each in workers + coordinators:
        until(lambda each=each: "serving" in (said := logs(each)) or "coordinating" in said, timeout_s=60, what=each)  # type: ignore[misc]
    task = ("agentos", "submit", "llm", '{"prompt": "hello"}', "--wait", "--json")
    assert json.loads(project("exec", "-T", "worker", *task))["status"] == "completed"

    project.image = NEXT
    assert '"functions": true' in project("run", "--rm", "--no-deps", "-T", "migrate")
    project("up", "--detach", "--no-deps", "coordinator")
    project("up", "--detach", "--no-deps", "worker")
    for service in ("coordinator", "worker"):
        assert {project.image_of(each) for each in project.containers(service)} == {NEXT}
    until(lambda: all("serving" in logs(each) for each in project.containers("worker")), timeout_s=60)
    assert json.loads(project("exec", "-T", "worker", *task))["status"] == "completed"

    project("stop", "--timeout", "40", "worker", "coordinator")
    wanted = f"--filter=label=com.docker.compose.project={project.name}"
    codes = docker("inspect", "--format={{.Config.Cmd}} {{.State.ExitCode}}", *docker("ps", "-aq", wanted).splitlines())
    assert [line for line in codes.splitlines() if "agentos" in line and not line.endswith(" 0")] == []


def logs(container: str) -> str:
    """What it said."""
    ran = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr
