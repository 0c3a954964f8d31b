"""A call that was sent, and whose reply is read later: for what the caller need not wait for, such as a wake-up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import generators

from agentos.store.run import Call, raise_mapped
from agentos.store.schema import in_schema


@dataclass(frozen=True, slots=True)
class Reply:
    """Not read yet. `give_back` is called when it is, or when it will never come."""

    conn: psycopg.Connection[Any]
    give_back: Callable[[], None]

    def wait(self) -> None:
        """Read it. Raises as the call would."""
        try:
            for result in self.conn.wait(generators.fetch_many(self.conn.pgconn)):
                if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result, encoding="utf-8")
        except psycopg.Error as exc:
            raise_mapped(exc)
        finally:
            self.give_back()


def send(conn: psycopg.Connection[Any], call: Call[Any], give_back: Callable[[], None]) -> Reply:
    """Send a call whose arguments are texts. Raises DatabaseUnavailable: if the connection is broken."""
    try:
        conn.pgconn.send_query_params(in_schema(call.sql).encode(), [each.encode() for each in call.args])
        conn.pgconn.flush()
    except psycopg.Error as exc:
        give_back()
        raise_mapped(exc)
    return Reply(conn, give_back)
