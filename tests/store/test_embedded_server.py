"""The embedded server: made, found, started again after whatever ended it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
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
)

from agentos.store.embedded import EmbeddedServer


@pytest.fixture
def empty() -> Iterator[Path]:
    with data_directory() as path:
        yield path


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory with a database, shared by the tests of this module."""
    with data_directory() as path:
        embedded(path).start()
        yield path


@pytest.fixture
def server(made: Path) -> Iterator[EmbeddedServer]:
    server = embedded(made)
    yield server
    server.stop(force=True)


def query(dsn: str, sql: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(sql)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


async def query_async(dsn: str, sql: str) -> object:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(sql)
    finally:
        await conn.close()


def test_first_use_makes_a_durable_database_that_both_drivers_reach(
    empty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = EmbeddedServer(empty, linger_s=LINGER_S)
    assert not server.status().running
    assert not empty.exists()

    dsn = server.ensure_running()
    server.ensure_running()

    assert query(dsn, "SHOW fsync") == "on"
    assert query(dsn, "SHOW listen_addresses") == ""
    assert query(dsn, "SHOW max_connections") == "200"
    assert asyncio.run(query_async(dsn, "SELECT current_database() || ' ' || current_setting('server_encoding')")) == (
        "agentos UTF8"
    )
    status = server.status()
    assert status.running
    assert status.dsn == dsn
    assert status.users == (os.getpid(),)
    assert status.version
    assert status.version.startswith("18.")
    assert status.size > 10_000_000
    output = capfd.readouterr()
    assert output.err.count("embedded database") == 1
    assert output.out == ""


def test_a_running_server_is_found_in_under_30_ms(server: EmbeddedServer) -> None:
    server.ensure_running()
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        server.ensure_running()
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.03


def test_ten_processes_at_once_on_an_empty_folder_share_one_server(empty: Path) -> None:
    processes = [start_user(empty) for _ in range(10)]
    dsns = {first_line(process) for process in processes}
    try:
        assert dsns == {embedded(empty).status().dsn}
        assert len(embedded(empty).status().users) == 10
        assert query(dsns.pop(), "SELECT 1") == 1
    finally:
        errors = [end(process) for process in processes]
    assert all("Traceback" not in error for error in errors)


def test_a_killed_postmaster_is_replaced_with_the_data_and_the_dsn_kept(server: EmbeddedServer) -> None:
    dsn = server.ensure_running()
    query(dsn, "CREATE TABLE kept (n) AS VALUES (7)")
    pid = server.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: server.status().pid != pid)  # its last processes may still live
    assert server.ensure_running() == dsn
    assert query(dsn, "SELECT n FROM kept") == 7
    assert server.status().pid != pid


def test_a_pid_file_from_before_a_reboot_does_not_hinder_although_its_pid_lives(
    server: EmbeddedServer, made: Path
) -> None:
    server.ensure_running()
    pid_file = made / "postgres" / "postmaster.pid"
    before = pid_file.read_text().split("\n", 1)[1]
    server.stop()
    owner = made / "postgres" / "PG_VERSION"
    uid = owner.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None) as other:
        pid_file.write_text(f"{other.pid}\n{before}")
        os.chown(pid_file, uid, -1)
        try:
            assert query(server.ensure_running(), "SELECT 1") == 1
        finally:
            other.kill()


def test_a_crash_in_the_middle_of_initdb_leaves_nothing_behind(empty: Path) -> None:
    process = start_user(empty)
    assert eventually(lambda: any(empty.glob("postgres.new-*/global")))
    kill(process)
    assert not (empty / "postgres").exists()
    assert query(embedded(empty).ensure_running(), "SELECT 1") == 1
    embedded(empty).stop()
    embedded(empty).start()  # the orphaned initdb is gone by now
    assert not list(empty.glob("postgres.new-*"))


def test_a_starter_killed_while_the_server_comes_up_leaves_a_server_that_is_found(server: EmbeddedServer) -> None:
    script = (
        "import os, sys; from pathlib import Path; from agentos.store.embedded import EmbeddedServer, postmaster\n"
        "postmaster.await_ready = lambda *_: os.kill(os.getpid(), 9)\n"
        "EmbeddedServer(Path(sys.argv[1]), linger_s=0.3).ensure_running()"
    )
    process = start_user(server.status().data_dir, script)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert query(server.ensure_running(), "SELECT 1") == 1


def test_a_server_whose_socket_was_removed_is_started_again(server: EmbeddedServer, made: Path) -> None:
    server.ensure_running()
    (made / "run" / ".s.PGSQL.5432").unlink()
    assert query(server.ensure_running(), "SELECT 1") == 1


@pytest.mark.parametrize("name", ["x" * 120, "it's a, name+%20 ü"])
def test_any_path_will_do(empty: Path, name: str) -> None:
    path = empty.parent / name
    server = embedded(path)
    try:
        dsn = server.ensure_running()
        assert query(dsn, "SELECT 1") == 1
        assert asyncio.run(query_async(dsn, "SELECT 2")) == 2
        socket_dir = Path(dsn.split("host=")[1].partition("&")[0])
        assert len(str(socket_dir)) < 90
        assert socket_dir.stat().st_mode & 0o077 == 0
    finally:
        server.stop(force=True)
    assert not socket_dir.exists()


def test_settings_are_taken_at_the_next_start(made: Path) -> None:
    server = EmbeddedServer(made, settings={**FAST, "work_mem": "7MB", "application_name": "it's"}, linger_s=LINGER_S)
    try:
        dsn = server.ensure_running()
        assert query(dsn, "SHOW work_mem") == "7MB"
        assert query(dsn, "SHOW fsync") == "off"
    finally:
        server.stop(force=True)
