"""The examples do what they say, run as their first lines say."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.coordinator.daemon import Daemon, close_all, coordinator, until

from agentos.core.app import App
from agentos.core.plan import load_plan
from agentos.store.calls import tasks, timeline
from agentos.store.calls.tasks import ItemRow
from agentos.store.connect import Database

EXAMPLES = Path(__file__).parents[1] / "examples"
Start = Callable[..., Daemon]


@pytest.fixture
def start(database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A worker that works in the test's folder and can import the examples, with a coordinator beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    started = [coordinator(database_dsn)]

    def worker(*args: str) -> Daemon:
        started.append(Daemon("agentos.worker", "--ttl", "1.5", "--poll", "0.1", "--grace", "1", *args))
        return started[-1]

    yield worker
    for daemon in started:
        daemon.signal(signal.SIGTERM)
    for daemon in started:
        daemon.ended()
    close_all(started)


def script(name: str, *args: str, timeout_s: float = 90) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_the_first_agent_asks_three_questions_and_writes_three_answers_down(start: Start, tmp_path: Path) -> None:
    start("--app", "first_agent:app")
    ran = script("first_agent.py")
    assert ran.returncode == 0, ran.stderr
    assert "What goes wrong?" in ran.stdout
    assert [line.split("SKIP LOCKED: ")[1][:5] for line in (tmp_path / "answers.txt").open()] == [
        "What ",
        "Who n",
        "What ",
    ]


def test_the_first_agent_is_as_short_as_it_says() -> None:
    code = (EXAMPLES / "first_agent.py").read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_the_plan_file_runs_to_its_end_with_its_evidence(start: Start, db: Database, tmp_path: Path) -> None:
    start("--allow-kind", "shell")
    command = [sys.executable, "-m", "agentos.cli", "run", str(EXAMPLES / "build.yaml"), "--task-id", "build"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "agentos-build" / "hello.tar").stat().st_size > 0
    done = {item.key: item for item in db.run(tasks.task_items("build"))}
    assert list(done) == ["source", "archive", "test", "announcement"]
    assert {item.status for item in done.values()} == {"completed"}
    assert finished_before(done["source"], done["archive"], done["announcement"])


def finished_before(*items: ItemRow) -> bool:
    times = [item.at for item in items if item.at is not None]
    return len(times) == len(items) and times == sorted(times)


def test_the_plan_file_has_no_mistakes() -> None:
    assert len(load_plan(EXAMPLES / "build.yaml").items) == 4


def test_the_script_that_dies_goes_on_from_its_checkpoint(
    database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    died = script("recovery.py", "report")
    assert died.returncode == -signal.SIGKILL
    assert died.stdout.splitlines() == ["0 of 4 chapters are there", "wrote Queues", "wrote Leases"]
    went_on = script("recovery.py", "report")
    assert went_on.returncode == 0, went_on.stderr
    assert went_on.stdout.splitlines() == ["2 of 4 chapters are there", "wrote Checkpoints", "wrote Evidence"]
    chapters = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("##")]
    assert chapters == ["## Queues", "## Leases", "## Checkpoints", "## Evidence"]


def test_an_agent_like_the_first_one_survives_the_kill_of_its_worker(
    start: Start, db: Database, tmp_path: Path
) -> None:
    """The promise of its docstring, with a model slow enough to be killed before its second answer."""
    slow = (EXAMPLES / "first_agent.py").read_text().replace(
        'prompt=f"{topic}: {question}")', 'prompt=f"{topic}: {question}", generate=think)'
    )  # fmt: skip
    name = f"agent_{uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(
        "import asyncio, os\n\nasync def think(prompt):\n    await asyncio.sleep(0.4)\n    return prompt\n\n" + slow
    )
    first = start("--app", f"{name}:app")
    first.until_said("serving")
    handle = App().submit("research", {"topic": "leases"})
    until(lambda: db.run(timeline.task_checkpoints(handle.task_id)), what="the first checkpoint")
    first.signal(signal.SIGKILL)
    start("--app", f"{name}:app")
    result = handle.result(timeout=60)
    expected = [f"leases: {question}" for question in ("What is it?", "Who needs it?", "What goes wrong?")]
    assert result["answers"] == expected
    assert (tmp_path / "answers.txt").read_text().splitlines() == expected
