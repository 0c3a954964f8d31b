"""Many calls in one transaction, each made while the server is still at the one before."""

from collections.abc import Iterable
from typing import Any

import psycopg

from agentos.store.run import Call, raise_mapped


def run_all(conn: psycopg.Connection[Any], calls: Iterable[Call[Any]]) -> None:
    """Run them all or none, in a transaction of their own or behind a savepoint in the caller's. What they return is
    not read. `calls` may be a generator: what it raises undoes those before.

    Raises the class of `agentos.store.errors` that the SQLSTATE names, DatabaseUnavailable if the connection broke.
    """
    try:
        with conn.transaction(), conn.pipeline():
            for call in calls:
                psycopg.RawCursor(conn).execute(call.sql, call.args, prepare=True)
    except (psycopg.Error, UnicodeEncodeError) as exc:
        raise_mapped(exc)
