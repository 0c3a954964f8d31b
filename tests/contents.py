"""Where a text stands in the database: in every table of the schema, whatever table is added later."""

from typing import Any

import psycopg
from psycopg import sql

TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'agentos' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


def tables_with(conn: psycopg.Connection[Any], text: str) -> set[str]:
    """The tables with a row in which it stands, also inside of bytes."""
    return {name for (name,) in conn.execute(TABLES).fetchall() if _stands_in(conn, name, text)}


def _stands_in(conn: psycopg.Connection[Any], table: str, text: str) -> bool:
    rows = conn.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier("agentos", table))).fetchall()
    return any(text in row[0] or text.encode().hex() in row[0] for row in rows)
