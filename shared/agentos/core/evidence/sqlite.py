"""DB_ROW in an SQLite file beneath an evidence root: opened read-only, names from its catalogue, values bound."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from agentos.core.evidence.beneath import opened, placed
from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.rows import TIMEOUT_S, RowClaim, shown
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.world import World

_TABLE = """
SELECT name, sql FROM sqlite_master
 WHERE type = 'table' AND name = ? COLLATE NOCASE AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"""


def sqlite_row(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    claim = RowClaim.of(evidence)
    db_path = evidence.metadata["db_path"]
    try:
        with _reading(db_path, world) as connection:
            statement = _statement(connection, claim)
            row = connection.execute(statement, _arguments(claim)).fetchone()
    except (sqlite3.Error, OverflowError) as error:
        raise Refuted(f"{db_path} could not be asked: {error}") from None
    return claim.answer(None if row is None else row[1:])


@contextmanager
def _reading(db_path: str, world: World) -> Iterator[sqlite3.Connection]:
    root, parts = placed(db_path, cwd=world.cwd, roots=world.evidence_roots)
    path = root.joinpath(*parts)
    with opened(db_path, cwd=world.cwd, roots=world.evidence_roots, read=False) as fd:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refuted(f"{db_path} is not a regular file")
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S / 2)) as connection:
            _guard(connection)
            # SQLite opens by name only; this is the file that was found, or the claim is not judged.
            if not os.path.samestat(found, os.lstat(path)):
                raise Refuted(f"{db_path} was replaced while it was opened")
            yield connection


def _guard(connection: sqlite3.Connection) -> None:
    """The file may be anybody's: bound in time, and nothing in its schema runs with side effects."""
    deadline = time.monotonic() + TIMEOUT_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA query_only = ON")


def _statement(connection: sqlite3.Connection, claim: RowClaim) -> str:
    """Of the rows that `where` finds one with all `values`, if there is: has it all of them, then has it each."""
    table = connection.execute(_TABLE, [claim.table]).fetchone()
    if table is None:
        raise Refuted(f"there is no table {claim.table[:80]} in that SQLite file")
    name, definition = table
    if not definition.upper().startswith("CREATE TABLE"):
        raise Refuted(f"{claim.table} is a virtual table; evidence may name only ordinary tables")
    columns = {row[0].lower(): row[0] for row in connection.execute("SELECT name FROM pragma_table_xinfo(?)", [name])}
    for column in claim.where | claim.values:
        if column.lower() not in columns:
            raise Refuted(f"{claim.table} has no column {column[:80]!r}")
    where, values = (
        [_test(columns[column.lower()], value) for column, value in part.items()]
        for part in (claim.where, claim.values)
    )
    every = " AND ".join(["1", *values])
    # Only quoted names out of the file's own catalogue are composed; values are bound.
    return (
        f"SELECT {', '.join([every, *values])} FROM {_quoted(name)} WHERE {' AND '.join(where)} ORDER BY 1 DESC LIMIT 1"  # noqa: S608
    )


def _test(column: str, value: object) -> str:
    return f"{_quoted(column)} IS NULL" if value is None else f"{_quoted(column)} = ?"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _arguments(claim: RowClaim) -> list[Any]:
    for name, value in [*claim.where.items(), *claim.values.items()]:
        if isinstance(value, dict | list):
            raise Refuted(f"column {name} of an SQLite table cannot be {shown(value)}")
    values, where = ([value for value in part.values() if value is not None] for part in (claim.values, claim.where))
    return [*values, *values, *where]
