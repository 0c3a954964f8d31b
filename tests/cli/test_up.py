"""`agentos up` and `agentos run`: real processes, from start to a clean end."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.cli.conftest import Command
from tests.coordinator.daemon import Daemon, until

from agentos.store.calls import timeline
from agentos.store.connect import Database

PLAN = """
title: two steps
items:
  - key: first
    command: echo one
  - key: second
    command: {second}
    max_attempts: 1
    depends_on: [first]
"""


@pytest.fixture
def pool(database_dsn: str) -> Iterator[Daemon]:
    """A pool that runs shell commands; nothing of it is left afterwards."""
    daemon = Daemon("agentos.cli", "up", "--allow-kind", "shell", "--concurrency", "2", env={"AGENTOS_TTL_S": "6"})
    children: list[psutil.Process] = []
    try:
        daemon.until_said('"leading"')
        daemon.until_said('"serving"')
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        yield daemon
    finally:
        daemon.close()
        until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), what="all gone")


def plan(folder: Path, second: str) -> str:
    path = folder / "plan.yaml"
    path.write_text(PLAN.format(second=second))
    return str(path)


def test_a_plan_is_run_and_followed_to_its_end(pool: Daemon, agentos: Command, tmp_path: Path) -> None:
    done = agentos("run", plan(tmp_path, "echo two"), "--task-id", "task-1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "completed"
    assert {key: result["stdout"] for key, result in told["result"].items()} == {"first": "one\n", "second": "two\n"}
    assert re.search(r"first: completed.*\n(.*\n)*.*second: completed", done.stderr)
    failed = agentos("run", plan(tmp_path, "exit 3"))
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[:2] == [
        "first: completed  one", "second: failed  'exit 3' ended with exit code 3",
    ]  # fmt: skip
    assert "second: 'exit 3'" in failed.stdout
    assert {line.split("│")[0].strip() for line in pool.lines if "│" in line} == {"coordinator", "worker"}


def test_ctrl_c_stops_all_of_them_cleanly(pool: Daemon, db: Database) -> None:
    pool.signal(signal.SIGINT)
    assert pool.ended() == 0
    assert pool.said('"drained"')
    assert [worker.state for worker in db.run(timeline.list_workers(60)) if worker.role == "worker"] == ["stopped"]
    assert db.run(timeline.is_led("coordinator")) is False


def test_a_killed_worker_is_started_again(pool: Daemon, agentos: Command, db: Database) -> None:
    (worker,) = db.run(timeline.list_workers())
    os.kill(worker.pid, signal.SIGKILL)
    pool.until_said("killed by SIGKILL; starting it again")
    assert agentos("submit", "shell", '{"command": "true"}', "--wait", "--timeout", "30").returncode == 0


def test_when_up_itself_is_killed_its_children_stop(pool: Daemon, db: Database) -> None:
    pool.kill()
    until(lambda: not db.run(timeline.list_workers()), what="the worker said goodbye")


def test_a_mistake_in_the_options_is_told_before_anything_starts(database_dsn: str) -> None:
    for options, says in ((("--app", "no_such_module:app"), "no_such_module"), (("--allow-kind", "all"), "only shell")):
        daemon = Daemon("agentos.cli", "up", *options)
        assert daemon.ended() == 2
        assert daemon.said(says)
        assert not daemon.said("agentos is up")


def test_a_plan_with_mistakes_creates_nothing(agentos: Command, database_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("items:\n  - key: first\n    comand: echo one\n")
    done = agentos("run", str(path))
    assert done.returncode == 2
    assert "plan.yaml:3" in done.stderr
    assert json.loads(agentos("tasks", "--json").stdout) == {"tasks": []}
