"""Bringing a database to this version: once, by however many at once; and what is said when it cannot be used."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from tests.drivers import Driver
from tests.store import engine

from agentos.store import migrate as migrating
from agentos.store.calls import items, tasks, workers
from agentos.store.connect import Database, connect, get_db, open_target
from agentos.store.errors import (
    AgentOSError,
    ConfigInvalid,
    DatabaseBusy,
    DatabaseTooOld,
    DatabaseUnavailable,
    MissingPrivilege,
    SchemaIncomplete,
    SchemaMissing,
    SchemaTooNew,
)
from agentos.store.migrate import check_schema, migrate, migrations, schema_state
from agentos.store.settings import load_settings
from agentos.testing.databases import Databases

MIGRATE = """
import sys
from agentos.store.connect import connect
from agentos.store.migrate import migrate
conn = connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
report = migrate(conn)
print(len(report.applied), int(report.functions))
"""


@pytest.fixture
def empty(empty_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database without the schema."""
    with connect(empty_database) as conn:
        yield conn


def test_ten_processes_that_start_at_once_on_an_empty_database_migrate_it_once(empty_database: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(10)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0] * 10
    assert said == ["0 0"] * 9 + [f"{len(migrations())} 1"]
    with connect(empty_database) as conn:
        check_schema(conn)


def test_a_current_database_is_left_alone(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    def written() -> Any:
        return conn.execute("SELECT applied_at FROM agentos.engine UNION ALL SELECT applied_at FROM agentos.migrations")

    before = written().fetchall()
    report = migrate(conn)
    assert (report.applied, report.functions, report.version) == ((), False, migrations()[-1].version)
    assert written().fetchall() == before


def test_a_current_database_is_recognised_while_somebody_else_migrates(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    with connect(database_dsn) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('agentos.migrate', 0))")
        assert migrate(conn).applied == ()


def test_a_dsn_is_not_migrated_without_being_asked(empty_database: str, empty: psycopg.Connection[Any]) -> None:
    for use in (lambda: get_db(empty_database), lambda: open_target(load_settings(dsn=empty_database))):
        with pytest.raises(SchemaMissing) as caught:
            use()
        assert "agentos migrate" in (caught.value.hint or "")
    assert schema_state(empty).version is None
    open_target(load_settings(dsn=empty_database), may_migrate=True)
    with get_db(empty_database) as conn:
        assert conn.autocommit
        check_schema(conn)


def test_a_migration_that_fails_leaves_what_was_there(empty: psycopg.Connection[Any], monkeypatch: Any) -> None:
    real = migrating.engine_sql()
    monkeypatch.setattr(migrating, "engine_sql", lambda: real + "\nSELECT 1/0;")
    with pytest.raises(AgentOSError):
        migrate(empty)
    assert schema_state(empty).version is None
    monkeypatch.setattr(migrating, "engine_sql", lambda: real)
    assert migrate(empty).functions


def test_an_older_schema_is_refused_and_brought_up_when_asked(empty: psycopg.Connection[Any], monkeypatch: Any) -> None:
    migrate(empty)
    known = migrations()
    newer = migrating.Migration(9999, "9999_more.sql", "ALTER TABLE agentos.lanes ADD COLUMN more text;")
    monkeypatch.setattr(migrating, "migrations", lambda: (*known, newer))
    with pytest.raises(SchemaIncomplete, match="9999") as caught:
        check_schema(empty)
    assert "agentos migrate" in (caught.value.hint or "")
    assert migrate(empty).applied == ("9999_more.sql",)
    check_schema(empty)


@pytest.mark.parametrize("lost", ["DELETE FROM agentos.engine", "DROP TABLE agentos.engine"])
def test_a_schema_whose_functions_are_not_recorded_is_refused_and_mended(
    conn: psycopg.Connection[Any], lost: Any
) -> None:
    conn.execute(lost)
    with pytest.raises(SchemaIncomplete):
        check_schema(conn)
    assert migrate(conn).functions
    check_schema(conn)


def test_a_schema_without_its_record_of_migrations_is_refused_with_the_way_out(conn: psycopg.Connection[Any]) -> None:
    conn.execute("DELETE FROM agentos.migrations")
    for use in (check_schema, migrate):
        with pytest.raises(SchemaIncomplete) as caught:
            use(conn)
        assert caught.value.hint


def test_functions_of_another_version_are_refused_and_replaced_when_asked(conn: psycopg.Connection[Any]) -> None:
    conn.execute("UPDATE agentos.engine SET digest = 'of another version'")
    with pytest.raises(SchemaIncomplete, match="functions") as caught:
        check_schema(conn)
    assert "agentos migrate" in (caught.value.hint or "")
    assert migrate(conn).functions
    check_schema(conn)


def test_a_newer_schema_is_refused_by_everybody(conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO agentos.migrations (version, name, digest) VALUES (9999, '9999_future.sql', 'x')")
    for use in (check_schema, migrate):
        with pytest.raises(SchemaTooNew, match="9999") as caught:
            use(conn)
        assert "upgrade agentos-pool" in (caught.value.hint or "")


def test_a_server_that_is_too_old_is_named(monkeypatch: Any) -> None:
    class Old:
        class info:
            server_version = 140_012

    for use in (check_schema, migrate):
        with pytest.raises(DatabaseTooOld, match="PostgreSQL 14") as caught:
            use(Old())  # type: ignore[arg-type]  # no server that old is at hand
        assert "15" in str(caught.value)


@pytest.fixture
def poor_role(test_server: Databases) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"poor_{test_server.template}"
    with connect(test_server.admin_dsn) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'poor'").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:poor@{host}"))


def test_a_role_that_may_not_create_the_schema_is_told(empty_database: str, poor_role: str) -> None:
    with connect(as_role(empty_database, poor_role)) as conn, pytest.raises(MissingPrivilege) as caught:
        migrate(conn)
    assert "agentos migrate" in (caught.value.hint or "")


def test_a_role_that_may_not_use_the_schema_is_told(database_dsn: str, poor_role: str) -> None:
    dsn = as_role(database_dsn, poor_role)
    with pytest.raises(MissingPrivilege) as caught:
        get_db(dsn)
    assert "grant" in (caught.value.hint or "")
    with connect(dsn) as conn, pytest.raises(MissingPrivilege):
        migrate(conn)
    database = Database(dsn)
    with pytest.raises(MissingPrivilege):
        database.run(tasks.list_tasks())
    database.close()


def test_a_migration_that_somebody_blocks_gives_up_with_a_name_for_it(
    database_dsn: str, conn: psycopg.Connection[Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(migrating, "LOCK_WAIT", "50ms")
    conn.execute("UPDATE agentos.engine SET digest = 'of another version'")
    with connect(database_dsn) as reader, reader.transaction():
        reader.execute("SELECT * FROM agentos.tasks")
        with pytest.raises(DatabaseBusy) as caught:
            migrate(conn)
        assert caught.value.hint
    assert migrate(conn).functions


def test_sessions_with_prepared_calls_survive_functions_that_are_re_applied(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    session = runner.session()
    worker = engine.register(session)

    def round_trip(n: int) -> None:
        engine.submit(session, f"task-{n}")
        (item,) = worker.claim(on=session)
        session.run(items.renew(worker.fence(item), 60))
        assert worker.complete(item, on=session) == frozenset()
        session.run(tasks.task_progress(f"task-{n}"))
        session.run(workers.beat(worker.worker_id, 0))

    for n in range(8):  # psycopg prepares what it has seen five times
        round_trip(n)
    conn.execute("UPDATE agentos.engine SET digest = 'of another version'")
    assert migrate(conn).functions
    for n in range(8, 16):
        round_trip(n)


UNREACHABLE = "postgresql://someone:hunter2@127.0.0.1:1/nothing"


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/nothing") as caught:
        get_db(UNREACHABLE)
    assert "AGENTOS_DSN" in (caught.value.hint or "")
    assert "hunter2" not in str(caught.value)


def test_a_database_that_does_not_exist_and_a_login_that_fails_are_told(test_server: Databases) -> None:
    with pytest.raises(DatabaseUnavailable, match="no_such_database"):
        connect(test_server.dsn("no_such_database"))
    with pytest.raises(DatabaseUnavailable, match="no_such_role"):
        connect(as_role(test_server.admin_dsn, "no_such_role"))


@pytest.mark.parametrize("dsn", ["postgresql://h/x?no_such_option=1", "host = = ="])
def test_a_dsn_that_cannot_be_read_is_named(dsn: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        connect(dsn)
    assert "AGENTOS_DSN" in (caught.value.hint or "")
