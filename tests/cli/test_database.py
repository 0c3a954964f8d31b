"""`agentos migrate` and `agentos db`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from tests.cli.conftest import Command

from agentos.store.connect import connect
from agentos.store.embedded import EmbeddedServer


def test_migrate_says_what_it_applied_and_then_that_there_is_nothing_to_do(
    agentos: Command, empty_database: str
) -> None:
    assert agentos("tasks", "--dsn", empty_database).returncode == 3
    first = json.loads(agentos("migrate", "--dsn", empty_database, "--json").stdout)
    assert first["applied"][0] == "0001_tables.sql"
    assert first["functions"] is True
    again = agentos("migrate", "--dsn", empty_database)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert agentos("tasks", "--dsn", empty_database).returncode == 0


def test_functions_are_applied_again_over_those_of_another_version(agentos: Command, database_dsn: str) -> None:
    with connect(database_dsn) as conn:
        conn.execute("UPDATE agentos.engine SET digest = 'other'")
    done = agentos("migrate")
    assert done.returncode == 0, done.stderr
    assert "re-applied the functions" in done.stdout


def test_a_newer_schema_is_left_alone(agentos: Command, database_dsn: str) -> None:
    with connect(database_dsn) as conn:
        conn.execute("INSERT INTO agentos.migrations (version, name, digest) VALUES (9999, '9999_later.sql', '')")
    for command in ("migrate", "tasks", "doctor"):
        assert agentos(command).returncode == 3


def test_the_embedded_database_is_started_looked_at_and_stopped(
    agentos: Command, own_server: Callable[..., EmbeddedServer]
) -> None:
    folder = {"AGENTOS_DATA_DIR": str(own_server({"fsync": "off"}).status().data_dir)}
    assert json.loads(agentos("db", "status", "--json", env=folder).stdout)["running"] is False
    started = agentos("db", "start", "--json", env=folder)
    assert started.returncode == 0, started.stderr
    found = json.loads(agentos("db", "status", "--json", env=folder).stdout)
    assert (found["running"], found["pinned"]) == (True, True)
    assert found["dsn"] == json.loads(started.stdout)["dsn"]
    user = subprocess.Popen(
        [sys.executable, "-c", "from agentos.store import get_db; get_db(); print('in', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **folder}, text=True,
    )  # fmt: skip
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == "in\n"
        refused = agentos("db", "stop", env=folder)
        assert refused.returncode == 3
        assert str(user.pid) in refused.stderr
        user.communicate("\n")
    assert "stopped" in agentos("db", "stop", env=folder).stdout
    assert "does not run" in agentos("db", "stop", env=folder).stdout
