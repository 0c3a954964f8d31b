"""DB_ROW in Postgres: is there a row that has these values.

Names are looked up in the catalogue with bound parameters, and only what was found there is composed into a statement,
by `psycopg.sql.Identifier`; values are always bound. The transaction is read-only, bounded in time and rolled back.
Only pg_catalog's operators and single values of base and enum types are used: a domain, view, foreign table or
operator of somebody else could run their code with our rights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.role import take_role
from agentos.core.evidence.rows import TIMEOUT_S, RowClaim, shown
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.world import World
from agentos.store.canonical import canonical_text
from agentos.store.errors import DatabaseUnavailable
from agentos.store.schema import schema as own_schema

OWN_TABLE = "tasks"
_UNAVAILABLE = ("08", "53300", "57P01", "57P02", "57P03")

# The schemas first: they are read before search_path changes. UTC: a timestamp without zone is the same on all hosts.
_BEGIN = """
SELECT current_schemas(false)::text[],
       set_config('transaction_read_only', 'on', true), set_config('statement_timeout', %(timeout)s, true),
       set_config('lock_timeout', %(timeout)s, true), set_config('search_path', 'pg_catalog', true),
       set_config('TimeZone', 'UTC', true)"""
_RELATION = """
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       EXISTS (WITH RECURSIVE below AS (
           SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
           UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.inhrelid)
           SELECT FROM below b JOIN pg_class f ON f.oid = b.inhrelid WHERE f.relkind = 'f')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %(table)s::text AND n.nspname = ANY (%(schemas)s::text[])
 ORDER BY array_position(%(schemas)s::text[], n.nspname::text) LIMIT 1"""
_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attname::text AS name, t.oid, t.typtype, t.typbasetype, t.typcategory
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (%s::text[])
    UNION ALL
    SELECT b.name, t.oid, t.typtype, t.typbasetype, t.typcategory
      FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
SELECT name, format_type(oid, -1), typtype IN ('b', 'e') AND typcategory <> 'A',
       oid IN ('json'::regtype, 'jsonb'::regtype)
  FROM base WHERE typtype <> 'd'"""
_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence", "c": "composite type"}


class _Column(NamedTuple):
    name: str
    type: str
    comparable: bool
    is_json: bool


def postgres_row(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not; DatabaseUnavailable: if the database did not answer."""
    claim = RowClaim.of(evidence)
    try:
        with world.connect() as connection, _reading(connection) as (cursor, search_path):
            schema, name, oid = _relation(cursor, claim.table, search_path)
            columns = _columns(cursor, oid, claim)
            row = cursor.execute(_statement(schema, name, columns, claim), _arguments(columns, claim)).fetchone()
    except psycopg.Error as error:
        raise _translated(error, claim.table) from None
    return claim.answer(None if row is None else row[1:])


@contextmanager
def _reading(connection: psycopg.Connection[Any]) -> Iterator[tuple[psycopg.Cursor[TupleRow], list[str]]]:
    timeout = {"timeout": str(int(TIMEOUT_S * 1000))}
    # A cursor of this class binds on the server, whatever cursor the connection makes by itself.
    with connection.transaction(force_rollback=True), psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        first = cursor.execute(_BEGIN, timeout).fetchone()
        take_role(cursor)
        yield cursor, first[0] if first else []


def _relation(cursor: psycopg.Cursor[TupleRow], table: str, search_path: list[str]) -> tuple[str, str, int]:
    """Schema, name and oid of the table, if evidence may name it."""
    own = own_schema()
    schema, dot, name = table.rpartition(".")
    schemas = [schema] if dot else [own] if name == OWN_TABLE else search_path
    row = cursor.execute(_RELATION, {"table": name, "schemas": schemas}).fetchone()
    if row is None:
        raise Refuted(f"there is no table {table[:80]}" + ("" if dot else f" in {', '.join(schemas)}"))
    oid, found_schema, found_name, kind, has_foreign = row
    if found_schema.startswith("pg_") or found_schema == "information_schema":
        raise Refuted(f"{table} is a system table, which evidence may not name")
    if found_schema == own and found_name == OWN_TABLE:
        return found_schema, found_name, oid
    if found_schema == own:
        raise Refuted(f"{table} is a table of agentos itself; of those evidence may name only {OWN_TABLE}")
    if kind not in ("r", "p"):
        raise Refuted(f"{table} is a {_KINDS.get(kind, 'special relation')}; evidence may name only ordinary tables")
    if has_foreign:
        raise Refuted(f"{table} has a foreign table as a part; evidence may name only ordinary tables")
    return found_schema, found_name, oid


def _columns(cursor: psycopg.Cursor[TupleRow], oid: int, claim: RowClaim) -> dict[str, _Column]:
    named = claim.where | claim.values
    found = {row[0]: _Column(*row) for row in cursor.execute(_COLUMNS, [oid, list(named)])}
    for name in named:
        if name not in found:
            raise Refuted(f"{claim.table} has no column {name[:80]!r}")
        if not found[name].comparable:
            raise Refuted(f"column {name} is of type {found[name].type}; only single values can be compared")
    for name, value in [*claim.where.items(), *claim.values.items()]:
        if isinstance(value, dict | list) and not found[name].is_json:
            raise Refuted(f"column {name} is of type {found[name].type}, which cannot be {shown(value)}")
    return found


def _statement(schema: str, name: str, columns: dict[str, _Column], claim: RowClaim) -> sql.Composed:
    """Of the rows that `where` finds one with all `values`, if there is: has it all of them, then has it each."""
    where = [_test(columns[column], value) for column, value in claim.where.items()]
    values = [_test(columns[column], value) for column, value in claim.values.items()]
    return sql.SQL("SELECT {} FROM {}.{} WHERE {} ORDER BY 1 DESC NULLS LAST LIMIT 1").format(
        sql.SQL(", ").join([sql.SQL(" AND ").join([sql.SQL("true"), *values]), *values]),
        _identifier(schema),
        _identifier(name),
        sql.SQL(" AND ").join(where),
    )


def _test(column: _Column, value: object) -> sql.Composed:
    if value is None:
        return sql.SQL("{} IS NULL").format(_identifier(column.name))
    if column.is_json:
        return sql.SQL("{}::jsonb = %s::jsonb").format(_identifier(column.name))
    # The type as format_type quotes it, but without its modifier: a cast to varchar(3) would cut the expected value.
    cast = sql.SQL(column.type.replace("%", "%%"))
    return sql.SQL("{} = %s::{}").format(_identifier(column.name), cast)


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(name.replace("%", "%%"))  # psycopg quotes names, but reads placeholders in them


def _arguments(columns: dict[str, _Column], claim: RowClaim) -> list[str]:
    values, where = (
        [_text(columns[name], value) for name, value in part.items() if value is not None]
        for part in (claim.values, claim.where)
    )
    return [*values, *values, *where]


def _text(column: _Column, value: object) -> str:
    return value if isinstance(value, str) and not column.is_json else canonical_text(value)


def _translated(error: psycopg.Error, table: str) -> Exception:
    said = error.diag.message_primary or str(error).partition("\n")[0]
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and error.sqlstate is None
    if lost or (error.sqlstate or "").startswith(_UNAVAILABLE):
        return DatabaseUnavailable(f"evidence about {table} could not be checked: {said}")
    return Refuted(f"the database refused to look into {table}: {said}")
