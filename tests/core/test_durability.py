"""Settings that may lose what was acknowledged are said at the start, whoever made them."""

from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from tests.coordinator.daemon import Daemon
from tests.drivers import Driver

from agentos.core.durability import warn_if_unsafe
from agentos.store.calls.durability import unsafe_settings


@pytest.mark.parametrize(("level", "source"), [("DATABASE", "database"), ("ROLE agentos IN DATABASE", "database user")])
def test_a_setting_of_the_database_or_of_the_role_counts(
    runner: Driver, conn: psycopg.Connection[Any], database_dsn: str, level: str, source: str
) -> None:
    name = sql.Identifier(urlsplit(database_dsn).path[1:])
    conn.execute(sql.SQL("ALTER {} {} SET synchronous_commit = off").format(sql.SQL(level), name))
    fresh = runner.session()  # only new sessions get it
    assert fresh.run(unsafe_settings())["synchronous_commit"] == source


def test_a_worker_and_a_coordinator_say_it(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    name = sql.Identifier(urlsplit(database_dsn).path[1:])
    conn.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    for module in ("agentos.worker", "agentos.coordinator"):
        process = Daemon(module, env={"AGENTOS_DSN": database_dsn})
        line = process.until_said('"synchronous_commit"')
        assert "may lose what was acknowledged" in line
        process.close()


def test_nothing_is_said_where_all_is_safe(
    database_dsn: str, conn: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    conn.execute(
        "CREATE OR REPLACE FUNCTION agentos.unsafe_settings() RETURNS TABLE (name text, source text) LANGUAGE sql"
        " AS $$ SELECT name, source FROM pg_settings WHERE name = 'synchronous_commit' AND setting = 'off' $$"
    )  # the tests' server runs without fsync
    warn_if_unsafe(database_dsn)
    assert "may lose" not in "".join(capsys.readouterr())
