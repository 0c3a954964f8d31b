"""The image, run as an orchestrator runs it: it drains, it recovers, its probes answer, and it needs nothing."""

import json
import tomllib
from pathlib import Path

import pytest
from tests.coordinator.daemon import until
from tests.deploy.engine import IMAGE, ROOT, docker
from tests.deploy.fleet import Fleet, ask

pytestmark = pytest.mark.timeout(900)  # the first test builds


def test_the_image_says_what_it_is(image: None) -> None:
    (found,) = json.loads(docker("image", "inspect", IMAGE))
    config, labels = found["Config"], found["Config"]["Labels"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert (config["User"], config["Cmd"], config["Entrypoint"]) == ("65532:65532", ["agentos-worker"], None)
    assert config["Healthcheck"]["Test"] == ["CMD", "agentos-worker", "--healthcheck"]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.revision"] == "test"
    assert config.get("Volumes") is None
    (base,) = json.loads(docker("image", "inspect", "python:3.11-slim"))
    assert found["Size"] - base["Size"] < 200e6, "what agentos adds to its base"


def test_a_task_runs_through_it_and_the_engine_finds_it_healthy(empty_fleet: Fleet) -> None:
    fleet = empty_fleet
    migrated = fleet.start("agentos", "migrate", "--json")
    until(lambda: not migrated.state()["Running"], timeout_s=60, what="the end of the migration")
    assert json.loads(migrated.logs())["functions"] is True
    worker = fleet.worker(options=["--health-interval=1s"])
    coordinator = fleet.coordinator()
    assert json.loads(worker.run("agentos", "submit", "quick", '{"n": 7}', "--wait", "--json"))["result"] == 7
    for each in (worker, coordinator):
        until(lambda each=each: ask(each, "/readyz")[0] == 200)  # type: ignore[misc]
        assert ask(each, "/livez")[0] == 200
        assert json.loads(each.run("agentos-worker", "--healthcheck", "--ready"))["ok"] is True
    until(lambda: worker.state()["Health"]["Status"] == "healthy", timeout_s=30)
    assert worker.stop()[0] == coordinator.stop()[0] == 0


def test_it_needs_no_root_no_shell_and_nothing_writable(fleet: Fleet, tmp_path: Path) -> None:
    broken = tmp_path / "no-shell"
    broken.write_text("")
    masked = [f"-v={broken}:{shell}:ro" for shell in ("/bin/sh", "/bin/bash")]
    worker = fleet.worker(options=[*masked, "--network-alias=w"])
    assert worker.run("id", "-u") == "65532"
    assert docker("exec", worker.name, "touch", "/app/x", "/opt/agentos/x", "/x", check=False) == ""
    assert docker("exec", worker.name, "find", "/app/x", "/opt/agentos/x", "/x", check=False) == ""
    status = worker.run("cat", "/proc/1/status")
    assert [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd"))] == ["0" * 16] * 2
    handle = fleet.submit("quick", n=1)
    assert handle.result(30) == 1
    assert json.loads(worker.run("agentos-worker", "--healthcheck"))["ok"] is True


def test_stop_drains_and_another_container_goes_on(fleet: Fleet) -> None:
    worker = fleet.worker("--grace=20")
    handle = fleet.submit("held")
    until((fleet.effects / "waiting").exists, timeout_s=30)
    code, took_s = worker.stop()
    assert code == 0, worker.logs()
    assert took_s < 10  # a checkpoint is where it stops, long before its grace
    assert fleet.counters(handle) == (0, 0)
    fleet.worker()
    (fleet.effects / "go").touch()
    assert handle.result(30) == "done"
    assert fleet.counters(handle) == (0, 0)
    assert len(fleet.lines()) == 1


def test_a_container_that_is_killed_is_recovered_by_another(fleet: Fleet) -> None:
    fleet.coordinator()
    first = fleet.worker()
    handle = fleet.submit("held")
    until((fleet.effects / "waiting").exists, timeout_s=30)
    fleet.worker()
    first.kill()
    (fleet.effects / "go").touch()
    assert handle.result(40) == "done"
    assert fleet.counters(handle) == (0, 1)
    assert len(fleet.lines()) == 1, "what was recorded is not done again"
