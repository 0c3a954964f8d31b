"""The demo itself: real processes, a real kill, and counts that are taken again here."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.coordinator.daemon import until

from agentos.demo import effects
from agentos.store.calls import tasks
from agentos.store.connect import Database

QUICK = ("--ttl", "6", "--pace", "0.5", "--limit", "20")


def start(out: Path, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "agentos.demo", "--out", str(out), *QUICK, *args], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def of_the_demo(out: Path) -> list[psutil.Process]:
    """Every living process that works in its folder: all that it started, and what they started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(out) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def written(out: Path, item: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((out / "artifacts" / f"{item}.json").read_text())
    return data


def names(log: Sequence[effects.Effect], tool: str) -> set[str]:
    return {each.item for each in log if each.tool == tool}


def test_the_audit_finishes_although_a_worker_is_killed_and_an_artifact_is_changed(
    db: Database, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    demo = start(out, "--json")
    stdout, stderr = demo.communicate(timeout=110)
    told = json.loads(stdout)
    assert (demo.returncode, told["problems"]) == (0, []), stderr
    assert of_the_demo(out) == []

    log = effects.read(out)
    assert told["effects_log"] == str(out / effects.NAME)
    first = [each for each in log if not each.repair]
    assert set(Counter(each.idempotency_key for each in first).values()) == {1}
    assert set(Counter(each.effect for each in first).values()) == {1}
    assert len(names(log, "verify_files")) == 20
    assert names(log, "verify_files") == names(log, "check_requirements") == names(log, "write_artifact") - {"(report)"}

    artifacts = {each.result["path"]: each.result["sha256"] for each in log if each.tool == "write_artifact"}
    assert len(artifacts) == 42
    assert all(hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest for path, digest in artifacts.items())
    killed = told["killed_item"]
    assert [each.result["path"] for each in log if each.repair] == [told["corrupted"]]
    assert Path(told["corrupted"]).name == f"{killed}.findings.json"
    assert killed in {each["item"] for each in told["resumed"]}
    assert {each["item"] for each in told["rejected"]} == {killed}
    assert all("sha256" in each["reason"] for each in told["rejected"])
    assert told["calls_replayed"] >= 1
    assert told["llm_calls_saved"] >= 1
    assert written(out, killed)["summary"].startswith("[stand-in model]")
    assert "<svg" in (out / "report.html").read_text()
    assert f"| {killed} |" in (out / "report.md").read_text()
    assert db.run(tasks.task_progress(told["task_id"])).status == "completed"


def test_the_plain_summary_has_the_line_that_names_the_effects_log(database_dsn: str, tmp_path: Path) -> None:
    demo = start(tmp_path / "out", "--plain")
    stdout, stderr = demo.communicate(timeout=110)
    assert demo.returncode == 0, stdout + stderr
    assert f"effects log: {tmp_path / 'out' / effects.NAME}" in stdout.splitlines()
    assert any(line.startswith("lost / duplicated:") and line.endswith("0 / 0") for line in stdout.splitlines())
    assert "SIGKILL for worker-" in stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_is_stopped_it_leaves_no_process(db: Database, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    demo = start(out, "--pace", "30")
    until((out / effects.NAME).exists, what="the first effect")
    assert len(of_the_demo(out)) >= 3
    os.kill(demo.pid, number)
    demo.communicate(timeout=30)
    until(lambda: not of_the_demo(out), what="the end of its processes")
    if number is not signal.SIGKILL:
        assert demo.returncode == 130
        [task] = db.run(tasks.list_tasks())
        assert (task.status, task.reason) == ("cancelled", "the demo was stopped")


def test_a_folder_that_is_not_empty_is_refused(database_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    demo = start(tmp_path)
    _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "is not an empty folder" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_database_without_the_schema_is_refused(empty_database: str, tmp_path: Path) -> None:
    demo = start(tmp_path / "out", "--dsn", empty_database, "--json")
    stdout, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 3
    assert "agentos migrate" in stderr
    told = json.loads(stdout)
    assert told["ok"] is False
    assert "agentos migrate" in told["error"]
    assert not (tmp_path / "out").exists()
