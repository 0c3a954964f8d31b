"""The embedded server lives as long as somebody uses it, and no longer."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.store.embedded_support import (
    FAST,
    LINGER_S,
    data_directory,
    embedded,
    end,
    eventually,
    first_line,
    kill,
    start_user,
    watchdog_pids,
)

from agentos.store.embedded import EmbeddedServer
from agentos.store.errors import ConfigInvalid, EmbeddedInUse

FORK = """
import os, sys, time
from pathlib import Path
from agentos.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), linger_s=0.3)
server.ensure_running()
if os.fork() == 0:
    print(os.getpid(), server.status().users == (os.getppid(),), flush=True)
    sys.stdin.readline()
    server.ensure_running()
    print(os.getpid() in server.status().users, flush=True)
    sys.stdin.read()
else:
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with data_directory() as path:
        embedded(path).start()
        yield path


@pytest.fixture
def server(made: Path) -> Iterator[EmbeddedServer]:
    """Stopped at first, and after the test."""
    server = embedded(made)
    server.stop(force=True)
    yield server
    server.stop(force=True)


def stopped(server: EmbeddedServer) -> bool:
    return not server.status().running


def test_the_server_stops_when_its_last_user_was_killed_and_not_before(server: EmbeddedServer, made: Path) -> None:
    first, second = start_user(made), start_user(made)
    first_line(first)
    first_line(second)
    kill(first)
    assert eventually(lambda: server.status().users == (second.pid,))
    assert not eventually(lambda: stopped(server), timeout_s=LINGER_S * 4)
    kill(second)
    assert eventually(lambda: stopped(server))
    assert eventually(lambda: not watchdog_pids(made))


def test_the_server_stops_after_its_last_user_ended_in_the_normal_way(server: EmbeddedServer, made: Path) -> None:
    user = start_user(made)
    first_line(user)
    end(user)
    assert eventually(lambda: stopped(server))


def test_a_user_who_comes_within_the_linger_keeps_it(made: Path) -> None:
    linger_s = 3.0  # so that a busy machine comes within it
    server = EmbeddedServer(made, settings=FAST, linger_s=linger_s)
    server.stop(force=True)
    server.start()
    pid = server.status().pid
    server.ensure_running()
    assert not eventually(lambda: stopped(server), timeout_s=linger_s * 1.5)
    assert server.status().pid == pid
    server.release()
    assert eventually(lambda: stopped(server))


def test_a_forked_child_is_a_user_of_its_own(server: EmbeddedServer, made: Path) -> None:
    parent = start_user(made, FORK)
    server.start(pin=True)
    child, alone = first_line(parent).split()
    assert alone == "True"
    os.kill(parent.pid, signal.SIGKILL)
    os.waitpid(parent.pid, 0)
    assert eventually(lambda: server.status().users == ())  # the child did not inherit the lock
    assert parent.stdin
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert first_line(parent) == "True"
    os.kill(int(child), signal.SIGKILL)
    parent.communicate(timeout=60)  # closes what the two had in common


def test_a_child_process_does_not_keep_the_lock_of_its_parent(server: EmbeddedServer, made: Path) -> None:
    script = (
        "import subprocess, sys, os; from pathlib import Path; from agentos.store.embedded import EmbeddedServer\n"
        "EmbeddedServer(Path(sys.argv[1]), linger_s=0.3).ensure_running()\n"
        "print(subprocess.Popen(['sleep', '60'], close_fds=False).pid, flush=True); os.kill(os.getpid(), 9)"
    )
    parent = start_user(made, script)
    child = int(first_line(parent))
    try:
        assert eventually(lambda: stopped(server))
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate(timeout=30)


def test_somebody_connected_who_is_no_user_is_not_thrown_out(server: EmbeddedServer) -> None:
    with psycopg.connect(server.ensure_running(), autocommit=True) as conn:
        server.release()
        assert not eventually(lambda: stopped(server), timeout_s=LINGER_S * 5)
        conn.execute("SELECT 1")
    assert eventually(lambda: stopped(server))


def test_a_pinned_server_runs_without_users_until_it_is_stopped(server: EmbeddedServer) -> None:
    server.start(pin=True)
    assert not eventually(lambda: stopped(server), timeout_s=LINGER_S * 4)
    assert server.status().pinned
    server.stop()
    assert stopped(server)
    assert not server.status().pinned


def test_stop_refuses_while_others_use_the_server_and_names_them(server: EmbeddedServer, made: Path) -> None:
    user = start_user(made)
    dsn = first_line(user)
    server.ensure_running()
    with pytest.raises(EmbeddedInUse, match=rf"\b{user.pid}\b"):
        server.stop()
    with psycopg.connect(dsn) as conn:
        conn.execute("SELECT 1")
    server.stop(force=True)
    assert stopped(server)
    kill(user)


def test_a_killed_watchdog_is_replaced(server: EmbeddedServer, made: Path) -> None:
    server.ensure_running()
    assert eventually(lambda: len(watchdog_pids(made)) == 1)
    (pid,) = watchdog_pids(made)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not watchdog_pids(made))
    server.ensure_running()
    assert eventually(lambda: len(watchdog_pids(made)) == 1)
    server.release()
    assert eventually(lambda: stopped(server))


def test_the_watchdog_ends_when_the_server_was_killed(server: EmbeddedServer, made: Path) -> None:
    server.ensure_running()
    pid = server.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not watchdog_pids(made))


def test_stop_without_a_server_does_nothing(server: EmbeddedServer, made: Path) -> None:
    server.stop()
    embedded(made / "nowhere").stop()
    assert not (made / "nowhere").exists()


def test_a_server_whose_data_were_removed_ends(server: EmbeddedServer) -> None:
    with data_directory() as path:
        other = embedded(path)
        other.ensure_running()
        pid = other.status().pid
        remove(path)
        assert eventually(lambda: not running(pid))
        other.ensure_running()
        assert other.status().running


def test_a_watchdog_whose_interpreter_starts_after_the_data_were_removed_ends_the_server(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o755)
    with data_directory() as path:
        other = embedded(path)
        monkeypatch.setattr(sys, "executable", str(slow))
        other.ensure_running()
        pid = other.status().pid
        remove(path)
        assert eventually(lambda: not running(pid))


def remove(path: Path) -> None:
    """All of it, while its server may still write: a folder that was just emptied need not be empty."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def running(pid: int | None) -> bool:
    """Whether `pid` lives and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state != "" and not state.startswith("Z")


def test_the_watchdog_is_light(server: EmbeddedServer, made: Path) -> None:
    """It starts before the site-packages are known, so it cannot import a library, and takes little memory."""
    server.ensure_running()
    assert eventually(lambda: len(watchdog_pids(made)) == 1)
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(watchdog_pids(made)[0])], capture_output=True, check=True)
    assert int(shown.stdout) < 40_000  # KiB


def test_the_linger_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.setenv("AGENTOS_EMBEDDED_LINGER_S", "soon")
    with pytest.raises(ConfigInvalid, match="AGENTOS_EMBEDDED_LINGER_S is 'soon'"):
        EmbeddedServer(made)
