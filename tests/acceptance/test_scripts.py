"""The acceptance scripts as a user runs them: by python3, their stdout byte for byte what the document prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.quick_reference import expected_output

FOLDER = Path(__file__).parent
SCRIPTS = ("test_runner_recovery_simple.py", "test_task9_e2e.py")


def run_script(name: str, folder: Path, dsn: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(FOLDER / name)], cwd=folder, env={**os.environ, "AGENTOS_DSN": dsn}, text=True,
        capture_output=True, check=False, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_stdout_is_the_expected_output_of_the_document(name: str, tmp_path: Path, database_dsn: str) -> None:
    done = run_script(name, tmp_path, database_dsn)
    assert done.stdout == expected_output(name), done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_cannot_work_fails(name: str, tmp_path: Path, empty_database: str) -> None:
    done = run_script(name, tmp_path, empty_database)
    assert done.returncode == 1
    assert "PASS -" not in done.stdout
    assert "ALL" not in done.stdout
    assert "agentos migrate" in done.stderr
