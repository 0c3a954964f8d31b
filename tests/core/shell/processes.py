"""Looking at processes from outside."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentos.core.shell import run_command
from agentos.store.errors import ToolTimeout


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Whether `holds` comes true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def timed_out(command: str, says: str, *timeouts_s: float) -> str:
    """What the error says of a command that ended at its timeout, once it had got so far as to write `says`: a busy
    machine may take longer than the shortest timeout to start a shell.
    """
    said = ""
    for timeout_s in timeouts_s:
        with pytest.raises(ToolTimeout) as caught:
            run_command(command, timeout_s=timeout_s)
        said = str(caught.value)
        if says in said:
            break
    return said


def alive(pid: int) -> bool:
    """Whether `pid` runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids(folder: Path, *names: str) -> list[int]:
    """The pids that a command wrote into files, once they are all there."""
    files = [folder / name for name in names]
    assert eventually(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    return [int(file.read_text()) for file in files]
