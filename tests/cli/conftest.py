"""The command as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def agentos() -> Command:
    """`agentos("tasks", "--json")`: runs it to its end, without a terminal."""

    def run(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "agentos.cli", *args], input=stdin, capture_output=True, text=True, check=False,
            timeout=60, env={**os.environ, **(env or {})},
        )  # fmt: skip

    return run
