"""Looking at processes from outside."""

import time
from collections.abc import Callable
from pathlib import Path


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether `holds` comes true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


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
