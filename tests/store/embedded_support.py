"""Data directories and user processes for the tests of the embedded server."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.store.embedded import EmbeddedServer

LINGER_S = 0.3
FAST = {"fsync": "off"}

USE = """
import sys
from pathlib import Path
from agentos.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}, linger_s=0.3)
print(server.ensure_running(), flush=True)
sys.stdin.read()
"""


@contextmanager
def data_directory() -> Iterator[Path]:
    """A folder that the server's user can enter (pytest's own is root's alone), removed with the server in it."""
    base = Path(tempfile.mkdtemp(prefix="agentos-test-"))
    base.chmod(0o711)
    try:
        yield base.resolve() / "data"
    finally:
        embedded(base / "data").stop(force=True)
        shutil.rmtree(base, ignore_errors=True)


def embedded(data_dir: Path) -> EmbeddedServer:
    return EmbeddedServer(data_dir, settings=FAST, linger_s=LINGER_S)


def start_user(data_dir: Path, script: str = USE, *, path: str | None = None) -> subprocess.Popen[str]:
    """A process that runs `script`; unless it is given another, it uses the server until its stdin closes."""
    return subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*([path] if path else []), *filter(None, sys.path)])},
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert process.stderr
    return process.stdout.readline().strip() or process.stderr.read()


def end(process: subprocess.Popen[str]) -> str:
    """Let `process` end by itself; its stderr."""
    return process.communicate(timeout=60)[1]


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    """Whether `condition` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def watchdog_pids(data_dir: Path) -> list[int]:
    shown = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in shown.splitlines()]
    wanted = f"agentos/store/embedded {data_dir} "
    return [int(pid) for pid, arguments in lines if wanted in arguments]
