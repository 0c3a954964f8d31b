"""Other processes with the test's database, for what only another process can show."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agentos.core.process import process_is_gone
from agentos.store.calls import workers
from agentos.store.connect import Database

PATIENCE_S = 60.0


def start(code: str, *args: object) -> "subprocess.Popen[str]":
    """Run Python code in a process of its own; `sys.argv[1:]` are the args."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], env=dict(os.environ), stdout=subprocess.PIPE, text=True
    )


def until(look: Callable[[], object]) -> None:
    """Wait until it is true; looks 100 times a second."""
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def killed(process: "subprocess.Popen[str]", when: Path) -> None:
    """Kill the process once the file is there, and wait until it is gone."""
    until(when.exists)
    process.kill()
    process.communicate()


def bury(db: Database, pid: int) -> None:
    """Declare the workers of a process dead that is gone, as a runner of the same host does."""
    mine = [each for each in db.run(workers.local_workers(os.uname().nodename)) if each.pid == pid]
    assert mine
    assert all(process_is_gone(each.process, each.pid) for each in mine)
    assert db.run(workers.declare_dead([each.worker_id for each in mine])) == len(mine)
