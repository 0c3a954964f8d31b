"""Whether a transaction pooler (PgBouncer) stands between this process and the server, and what is left out then.

Behind one each transaction may run in another session: a statement prepared under a name, or a LISTEN, is lost or is
found by somebody else. So no statement is prepared, asyncpg's place is taken by psycopg (asyncpg parses and runs in two
steps, between which the pooler may change the session), and workers poll.

The sign: a pooler invents the process id that a client is told at its login (it is half of the key to cancel by), so it
is not the one that `pg_backend_pid()` returns. Asked once for each server a process connects to.
"""

from typing import Any, cast

import psycopg

from agentos.store.settings import load_settings
from agentos.store.transport import endpoints

_found: dict[tuple[str, str], bool] = {}
"""By host and port: whether there is one."""


def forget() -> None:
    """Ask again: what stands behind an address may have changed (tests)."""
    _found.clear()


def adapt(conn: psycopg.Connection[Any]) -> bool:
    """Make a new connection, outside any transaction, fit for what it goes through; whether that is a pooler."""
    pooled = is_pooled(conn)
    if pooled:
        conn.prepare_threshold = None
    return pooled


def is_pooled(conn: psycopg.Connection[Any]) -> bool:
    """Whether this connection goes through a pooler; AGENTOS_POOLER decides if it is set."""
    said = load_settings().pooler
    if said != "auto":
        return said == "transaction"
    key = (conn.info.host, str(conn.info.port))
    if key not in _found:
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        _found[key] = row is not None and cast(int, row[0]) != conn.info.backend_pid
    return _found[key]


def known(dsn: str) -> bool | None:
    """Whether there is one in front of all servers the DSN names; None: nobody has looked."""
    said = load_settings().pooler
    if said != "auto":
        return said == "transaction"
    found = [_found.get(endpoint) for endpoint in endpoints(dsn)]
    return True if True in found else None if None in found else False
