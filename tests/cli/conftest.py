"""The command as a real process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    """See `tests.cli.zygote`."""
    command = [sys.executable, "-m", "tests.cli.zygote"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def agentos(zygote: subprocess.Popen[str]) -> Command:
    """`agentos("tasks", "--json")`: runs it to its end, without a terminal."""
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    to, back = zygote.stdin, zygote.stdout

    def run(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        print(json.dumps({"argv": args, "env": {**os.environ, **(env or {})}, "stdin": stdin}), file=to, flush=True)
        done = json.loads(back.readline())
        return subprocess.CompletedProcess(list(args), done["code"], done["stdout"], done["stderr"])

    return run
