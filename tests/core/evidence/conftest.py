"""A private Postgres and the world of a test.

SWAP HERE: `server_dsn` starts a server of its own from the PostgreSQL programs on this machine unless
AGENTOS_TEST_DSN names one; give it the DSN of the common test server when there is one. Everything else asks only
for a DSN that may create databases.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.core.evidence.worlds import MakeWorld, no_database, nothing_recorded

from agentos.core.evidence import LocalWorld


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """DSN of a server whose role may create databases."""
    if dsn := os.environ.get("AGENTOS_TEST_DSN"):
        yield dsn
        return
    programs = _programs()
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="agentos-evidence-"))
    try:
        if user:
            shutil.chown(folder, user)
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
        _run([str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N"], user)
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"], user)
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found := shutil.which("initdb"):
        installed.append(Path(found).parent)
    if not installed:
        pytest.skip("no PostgreSQL programs on this machine; set AGENTOS_TEST_DSN")
    return installed[-1]


def _run(command: list[str], user: str | None) -> None:
    subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)


@pytest.fixture(scope="session")
def database_dsn(server_dsn: str) -> Iterator[str]:
    """A database of its own with the relations that evidence names, in and out of bounds."""
    name = f"evidence_{secrets.token_hex(4)}"
    with psycopg.connect(server_dsn, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = make_conninfo(server_dsn, dbname=name)
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute((Path(__file__).parent / "relations.sql").read_text())
            yield dsn
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(database_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A world whose only root and current directory is `tmp_path`, unless the test says otherwise."""

    def make(**given: Any) -> LocalWorld:
        defaults: dict[str, Any] = {
            "recorded_exit_code": nothing_recorded,
            "connect": no_database,
            "may_rerun": False,
            "cwd": tmp_path,
            "evidence_roots": (tmp_path,),
        }
        return LocalWorld(**(defaults | given))

    return make


@pytest.fixture
def world(make_world: MakeWorld) -> LocalWorld:
    return make_world()


@pytest.fixture
def database_world(make_world: MakeWorld, database: psycopg.Connection[Any]) -> LocalWorld:
    return make_world(connect=lambda: contextlib.nullcontext(database))
