"""The database goes away, comes back, or is not what the coordinator knows."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import Daemon, close_all, coordinator, until
from tests.coordinator.pool import submit_many, worker_that_dies

from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate


@pytest.fixture
def server(own_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return own_server({"fsync": "off"})


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    started: list[Daemon] = []
    yield started
    close_all(started)


def probe(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_goes_on_after_a_restart_of_the_database_and_its_probes_tell(
    server: EmbeddedServer, daemons: list[Daemon]
) -> None:
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    daemons.append(coordinator(dsn, "--health-port", "0"))
    port = json.loads(daemons[0].until_said('"health"'))["port"]
    until(lambda: probe(port, "/readyz") == 200)
    server.stop(force=True)
    until(lambda: probe(port, "/readyz") == 503)
    assert probe(port, "/livez") == 200
    assert probe(port, "/else") == 404
    server.ensure_running()
    db = Database(dsn)
    submit_many(db, 1)
    worker_that_dies(db, ttl_s=0.05, claims=1)
    db.close()
    with connect(dsn) as conn:
        until(lambda: conn.execute("SELECT 1 FROM agentos.lease_ready").fetchone(), what="the lease is taken back")
    until(lambda: probe(port, "/readyz") == 200)
    assert daemons[0].process.poll() is None


def test_it_waits_for_a_database_that_starts_after_it(server: EmbeddedServer, daemons: list[Daemon]) -> None:
    dsn = server.ensure_running()
    server.stop(force=True)
    daemons.append(coordinator(dsn, "--migrate"))
    assert "cannot connect" in daemons[0].until_said("trying again")
    server.ensure_running()
    daemons[0].until_said("leading")


def test_it_refuses_a_database_without_the_schema(empty_database: str, daemons: list[Daemon]) -> None:
    daemons.append(coordinator(empty_database))
    assert daemons[0].ended() == 3
    assert daemons[0].said("no agentos schema")
    assert daemons[0].said("Fix: run `agentos migrate`")


def test_it_makes_the_schema_when_asked(empty_database: str, daemons: list[Daemon]) -> None:
    daemons.append(coordinator(empty_database, "--migrate"))
    daemons[0].until_said("leading")


def _pretend_newer(conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO agentos.migrations (version, name, digest) VALUES (9999, '9999_later.sql', '')")


def test_it_refuses_a_schema_of_a_newer_version(conn: psycopg.Connection[Any], start: Callable[..., Daemon]) -> None:
    _pretend_newer(conn)
    coordinator = start()
    assert coordinator.ended() == 3
    assert coordinator.said("the schema is at version 9999")


@pytest.mark.unsound("a function is taken away")
def test_it_ends_when_a_newer_version_replaces_the_schema_under_it(
    conn: psycopg.Connection[Any], start: Callable[..., Daemon]
) -> None:
    coordinator = start()
    coordinator.until_said("leading")
    _pretend_newer(conn)
    conn.execute("DROP FUNCTION agentos.lead")
    assert coordinator.ended() == 3
    assert coordinator.said("the schema is at version 9999")


def test_an_option_that_cannot_be_used_is_refused(start: Callable[..., Daemon]) -> None:
    coordinator = start("--ttl", "-1")
    assert coordinator.ended() == 2
    assert coordinator.said("AGENTOS_TTL_S")


def test_once_fails_when_the_database_cannot_be_reached(daemons: list[Daemon]) -> None:
    daemons.append(coordinator("postgresql://nobody@127.0.0.1:1/none", "--once"))
    assert daemons[0].ended() == 3


def test_help_answers_without_loading_the_drivers() -> None:
    code = (
        "import sys, agentos.coordinator.__main__ as m\n"
        "try: m.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('asyncpg' in sys.modules or 'psycopg' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0
    assert "exit codes" in done.stdout
