"""Bringing a database's schema to this version: numbered migrations once each, the functions whenever they changed.

Everything happens in one transaction under an advisory lock, so that ten processes may start at once on an empty
database and a crash leaves what was there before.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import psycopg

from agentos.store import roles
from agentos.store.engine import in_place, parts, record
from agentos.store.errors import DatabaseTooOld, SchemaIncomplete, SchemaMissing, SchemaTooNew
from agentos.store.grants import SQL
from agentos.store.run import raise_mapped
from agentos.store.schema import in_schema, schema

OLDEST_SERVER = 15
LOCK_WAIT = "10s"
_BOOTSTRAP = """
CREATE TABLE IF NOT EXISTS agentos.migrations (
    version integer PRIMARY KEY, name text NOT NULL, digest text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS agentos.engine (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), digest text NOT NULL, applied_at timestamptz NOT NULL,
    parts jsonb NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of sql/migrations: `0001_tables.sql` is version 1."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Identifies its text: a migration that was applied must never change."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database has. `version` None: no schema; 0: a schema without a finished migration.

    `altered`: migrations that were applied to it with another text than this version's.
    """

    version: int | None
    engine_digest: str | None
    altered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `migrate` did: names of the migrations applied, whether the functions were re-applied, the roles made."""

    applied: tuple[str, ...]
    functions: bool
    version: int
    roles: tuple[str, ...] = ()


def _sql_files(folder: str) -> Iterable[Traversable]:
    return sorted((f for f in (SQL / folder).iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)


def migrations() -> tuple[Migration, ...]:
    """The migrations of this version, in order."""
    return tuple(Migration(int(f.name[:4]), f.name, f.read_text("utf-8")) for f in _sql_files("migrations"))


def engine_sql() -> str:
    """The text of all functions and views, in order."""
    return "\n".join(f.read_text("utf-8") for f in _sql_files("functions"))


def engine_digest() -> str:
    """Identifies the functions of this version."""
    return hashlib.sha256(engine_sql().encode()).hexdigest()


def check_server(conn: psycopg.Connection[Any]) -> None:
    """Raises DatabaseTooOld: if the server is older than PostgreSQL 15."""
    major = conn.info.server_version // 10000
    if major < OLDEST_SERVER:
        raise DatabaseTooOld(
            f"the server is PostgreSQL {major}; agentos needs {OLDEST_SERVER} or newer",
            hint="upgrade the server, or leave the DSN out to use the embedded one",
        )


def schema_state(conn: psycopg.Connection[Any]) -> SchemaState:
    """Read what the database has; no lock, no write."""
    found = conn.execute(
        in_schema(
            "SELECT to_regnamespace('agentos') IS NOT NULL, to_regclass('agentos.migrations') IS NOT NULL,"
            " to_regclass('agentos.engine') IS NOT NULL"
        )
    ).fetchone()
    has_schema, has_migrations, has_engine = found or (False, False, False)
    if not has_schema:
        return SchemaState(None, None)
    if not (has_migrations and has_engine):
        return SchemaState(0, None)
    applied, engine = _applied(conn)
    altered = tuple(m.name for m in migrations() if applied.get(m.version, m.digest) != m.digest)
    return SchemaState(max(applied, default=0), engine, altered)


def _applied(conn: psycopg.Connection[Any]) -> tuple[dict[int, str], str | None]:
    """The digests of the migrations, and of the functions: from the tables, or by a function that may read them."""
    told = conn.execute(
        in_schema(
            "SELECT has_table_privilege('agentos.migrations', 'SELECT'),"
            " to_regprocedure('agentos.applied_schema()') IS NOT NULL"
        )
    ).fetchone()
    if told == (False, True):
        rows = conn.execute(in_schema("SELECT version, digest, engine FROM agentos.applied_schema()")).fetchall()
        return {row[0]: row[1] for row in rows}, rows[0][2] if rows else None
    engine = conn.execute(in_schema("SELECT digest FROM agentos.engine")).fetchone()
    applied = conn.execute(in_schema("SELECT version, digest FROM agentos.migrations")).fetchall()
    return dict(applied), engine[0] if engine else None


def check_schema(conn: psycopg.Connection[Any]) -> None:
    """Raises SchemaMissing, SchemaIncomplete or SchemaTooNew: if this version cannot run on the database's schema.

    Raises DatabaseTooOld. MissingPrivilege: if the role may not use the schema.
    """
    check_server(conn)
    try:
        state, newest = schema_state(conn), migrations()[-1].version
    except psycopg.Error as exc:
        raise_mapped(exc)
    if state.version is None:
        raise SchemaMissing(
            f"the database has no {schema()} schema", hint="run `agentos migrate`, or start with --migrate"
        )
    if state.version > newest:
        raise SchemaTooNew(
            f"the schema is at version {state.version}, this agentos knows {newest}",
            hint="upgrade agentos-pool on this host; an old worker on a newer schema would be unsafe",
        )
    if state.altered:
        raise SchemaIncomplete(
            f"the schema was made by a development version: {', '.join(state.altered)} had another text then",
            hint="no migration leads from there to here; drop the schema (embedded: `agentos db stop`, then "
            "remove its folder, which `agentos db status` names)",
        )
    if state.version < newest or state.engine_digest is None:
        raise SchemaIncomplete(
            f"the schema is at version {state.version}, this agentos needs {newest}",
            hint="run `agentos migrate` with this version of agentos-pool",
        )
    if state.engine_digest != engine_digest():
        raise SchemaIncomplete(
            "the functions in the database are those of another version of agentos than this one",
            hint="run `agentos migrate` with the version that all hosts are to use, and upgrade this host to it",
        )


def migrate(conn: psycopg.Connection[Any], *, role_prefix: str | None = None) -> MigrationReport:
    """Bring the schema to this version; does nothing when it is there. `conn` must be in autocommit.

    `role_prefix`: also make the five roles, their names beginning with it; a schema that has them keeps them.

    Raises SchemaTooNew: if a newer agentos migrated it. MissingPrivilege: if the role may not create the schema.
    Raises DatabaseBusy: if a transaction that reads from it does not end within 10 s. SchemaIncomplete: if there are
    tables, and no record of the migrations that made them.
    """
    check_server(conn)
    known = migrations()
    try:
        if role_prefix is None and schema_state(conn) == SchemaState(known[-1].version, engine_digest()):
            return MigrationReport((), functions=False, version=known[-1].version)
        with conn.transaction():
            return _apply(conn, known, role_prefix)
    except psycopg.errors.DuplicateTable as exc:
        raise SchemaIncomplete(
            f"the schema {schema()} has tables, and no record of the migration that made them: "
            f"{exc.diag.message_primary}",
            hint="restore agentos.migrations from a backup, or drop the schema (and with it all tasks)",
        ) from exc
    except psycopg.Error as exc:
        raise_mapped(exc)


def _apply(conn: psycopg.Connection[Any], known: tuple[Migration, ...], role_prefix: str | None) -> MigrationReport:
    conn.execute(in_schema("SELECT pg_advisory_xact_lock(hashtextextended('agentos.migrate', 0))"))
    # After that lock, which others may hold for long. A DDL statement that waits makes everybody behind it wait.
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_WAIT,))
    conn.execute("SET LOCAL client_min_messages = warning")
    prefix = roles.prefix_of(conn)
    if prefix is not None:
        roles.act_as_owner(conn, prefix)
    elif conn.execute(in_schema("SELECT to_regnamespace('agentos')")).fetchone() == (None,):
        conn.execute(in_schema("CREATE SCHEMA agentos;"))  # IF NOT EXISTS would need the right to create one
    conn.execute(in_schema(_BOOTSTRAP))
    state = schema_state(conn)  # again, under the lock
    done = state.version or 0
    if done > known[-1].version or state.altered:
        check_schema(conn)
    pending = [m for m in known if m.version > done]
    for migration in pending:
        conn.execute(_placed(migration.sql))
        conn.execute(
            in_schema("INSERT INTO agentos.migrations (version, name, digest) VALUES (%s, %s, %s)"),
            (migration.version, migration.name, migration.digest),
        )
    digest = engine_digest()
    if functions := state.engine_digest != digest:
        _apply_engine(conn, digest)
    conn.execute(in_schema("SELECT agentos.ensure_partitions()"))
    names = _with_roles(conn, prefix, role_prefix)
    return MigrationReport(tuple(m.name for m in pending), functions, known[-1].version, names)


def _with_roles(conn: psycopg.Connection[Any], prefix: str | None, wanted: str | None) -> tuple[str, ...]:
    """Last, when everything there is to own and to grant is there."""
    names: tuple[str, ...] = ()
    if wanted is not None:
        conn.execute("SET LOCAL ROLE NONE")
        names = roles.create_roles(conn, wanted)
        prefix = wanted
    if prefix is not None:
        roles.act_as_owner(conn, prefix)
        roles.apply_grants(conn, prefix)
    return names


def _apply_engine(conn: psycopg.Connection[Any], digest: str) -> None:
    text, (_, new) = engine_sql(), parts(engine_sql())
    found = conn.execute(in_schema("SELECT parts FROM agentos.engine")).fetchone()
    applied = found[0] if found else {}
    changes = in_place(applied, new) if applied else None
    conn.execute("SET LOCAL check_function_bodies = off")  # they call each other in any order
    conn.execute(_placed(changes or text))
    conn.execute(
        in_schema(
            "INSERT INTO agentos.engine (digest, applied_at, parts) VALUES (%s, clock_timestamp(), %s)"
            " ON CONFLICT (one) DO UPDATE SET digest = excluded.digest, applied_at = excluded.applied_at,"
            " parts = excluded.parts"
        ),
        (digest, record(new, applied if changes else {})),
    )


def _placed(text: str) -> bytes:
    return in_schema(text).encode()  # read from our own files
