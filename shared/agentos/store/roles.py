"""Least privilege: five group roles, and who may call what.

`<prefix>owner` owns the schema and all in it. `_submitter`, `_worker` and `_coordinator` have no right on any table,
only EXECUTE on the functions that sql/grants.txt gives them, which run with the owner's rights; `_reader` reads. None
can log in: login roles are granted them. Whether a database has them is told by its schema's owner, so that every
later `agentos migrate` acts as that owner and grants anew what it has made anew.
"""

import re
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from agentos.store.errors import ConfigInvalid
from agentos.store.grants import DUTIES, OWNER, PREFIX, granted
from agentos.store.schema import schema

PINNED = "pg_catalog, pg_temp"
"""The search_path of every function that runs with the owner's rights: what it names says its schema itself."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_OWNED = """
SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
       format('%%I.%%I', %(schema)s::text, c.relname)
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p', 'v', 'S', 'c')
   AND c.relowner <> %(owner)s::regrole AND NOT EXISTS (
       SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
          AND d.deptype IN ('a', 'i'))
UNION ALL
SELECT 'FUNCTION', p.oid::regprocedure::text FROM pg_proc p
 WHERE p.pronamespace = to_regnamespace(%(schema)s) AND p.proowner <> %(owner)s::regrole"""


def check_prefix(prefix: str) -> str:
    """Raises ConfigInvalid: if role names cannot begin with it."""
    if not _NAME.fullmatch(prefix) or prefix.startswith("pg_"):
        raise ConfigInvalid(
            f"the role prefix {prefix!r} cannot be used",
            hint="small letters, digits and _, 40 at most, not beginning with a digit or pg_",
        )
    return prefix


def prefix_of(conn: psycopg.Connection[Any]) -> str | None:
    """The prefix of the roles that this schema has; None: it has none."""
    row = conn.execute(
        "SELECT r.rolname, r.rolcanlogin FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner"
        " WHERE n.nspname = %s",
        (schema(),),
    ).fetchone()
    if row is None or row[1] or not row[0].endswith(OWNER):
        return None
    prefix = str(row[0]).removesuffix(OWNER)
    found = conn.execute(
        "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", ([prefix + duty for duty in DUTIES],)
    ).fetchone()
    return prefix if found == (len(DUTIES),) else None  # or an owner that somebody has made for himself


def act_as_owner(conn: psycopg.Connection[Any], prefix: str) -> None:
    """For the rest of the transaction: what is made belongs to the owner."""
    _run(conn, "SET LOCAL ROLE {}", prefix + OWNER)


def create_roles(conn: psycopg.Connection[Any], prefix: str = PREFIX) -> tuple[str, ...]:
    """Make what is missing of the five roles, and hand the schema over to the owner. Inside a transaction.

    Dies the process before the COMMIT, nothing has changed; after it, all of it has. Returns their names.
    """
    names = tuple(check_prefix(prefix) + duty for duty in (OWNER, *DUTIES))
    for name in names:
        if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
            _run(conn, "CREATE ROLE {} NOLOGIN", name)
    owner = names[0]
    row = conn.execute(
        "SELECT rolsuper, pg_has_role(%s, 'MEMBER') FROM pg_roles WHERE rolname = current_user", (owner,)
    )
    is_super, is_member = row.fetchone() or (False, False)
    if not is_member:
        _run(conn, "GRANT {} TO CURRENT_USER", owner)
    if is_super:  # what `agentos doctor` tells of the sessions of others
        _run(conn, "GRANT pg_read_all_stats TO {}", owner)
    _run(conn, "ALTER SCHEMA {} OWNER TO {}", schema(), owner)
    conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")  # names of functions come with their schema
    for kind, name in conn.execute(_OWNED, {"schema": schema(), "owner": owner}).fetchall():
        conn.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(sql.SQL(kind), sql.SQL(name), sql.Identifier(owner)))
    return names


def apply_grants(conn: psycopg.Connection[Any], prefix: str) -> None:
    """Grant what sql/grants.txt says, and nothing else. Inside a transaction, as the owner or a member of it."""
    conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
    where, duties = schema(), [prefix + duty for duty in DUTIES]
    _run(conn, "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {} FROM PUBLIC", where)
    for name in duties:
        _run(conn, "GRANT USAGE ON SCHEMA {} TO {}", where, name)
        _run(conn, "REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}", where, name)
        _run(conn, "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {} FROM {}", where, name)
    _run(conn, "GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}", where, f"{prefix}reader")
    for signature, name in _functions(conn):
        if allowed := granted().get(name):
            function = sql.SQL(signature)
            conn.execute(
                sql.SQL("ALTER FUNCTION {} SECURITY DEFINER SET search_path = {}").format(function, sql.SQL(PINNED))
            )
            roles = sql.SQL(", ").join(sql.Identifier(prefix + duty) for duty in allowed)
            conn.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(function, roles))


def _functions(conn: psycopg.Connection[Any]) -> Iterable[tuple[Any, str]]:
    return conn.execute(
        "SELECT oid::regprocedure::text, proname::text FROM pg_proc WHERE pronamespace = to_regnamespace(%s)"
        " ORDER BY 1",
        (schema(),),
    ).fetchall()


def _run(conn: psycopg.Connection[Any], text: Any, *names: str) -> None:
    conn.execute(sql.SQL(text).format(*map(sql.Identifier, names)))
