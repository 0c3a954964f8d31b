"""What every connection is opened with, and what is said when it cannot be opened."""

from typing import Any

import psycopg

from agentos.store import transport
from agentos.store.errors import ConfigInvalid
from agentos.store.redact import redact
from agentos.store.sessions import application_name

CONNECT_TIMEOUT_S = 10
APPLICATION = "agentos"
PATIENCE: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}  # fmt: skip
"""What a psycopg connection does about a server that has vanished: by default it waits a quarter of an hour."""


def for_psycopg(dsn: str, application: str | None = None) -> dict[str, Any]:
    """What every psycopg connection is opened with, beside its DSN. Raises ConfigInvalid: if the DSN cannot be read."""
    try:
        secure = transport.for_psycopg(dsn)
    except psycopg.ProgrammingError as exc:
        raise ConfigInvalid(
            f"the DSN cannot be read: {redact(str(exc))}",
            hint="write AGENTOS_DSN (or --dsn) as postgresql://user:password@host:5432/database",
        ) from exc
    return {
        "autocommit": True,
        "application_name": application_name(application or APPLICATION, dsn),
        **PATIENCE,
        **secure,
    }


def for_asyncpg(dsn: str) -> dict[str, Any]:
    """The same of asyncpg, the DSN among it."""
    return {
        "timeout": CONNECT_TIMEOUT_S, "command_timeout": 60,
        "server_settings": {"application_name": application_name(APPLICATION, dsn)},
        **transport.for_asyncpg(dsn),
    }  # fmt: skip


def fix(exc: psycopg.OperationalError) -> str:
    """What to do about a connection that cannot be opened."""
    if "unsupported startup parameter" in str(exc):
        return (
            "that is PgBouncer: take the parameter out of the DSN (ALTER ROLE ... SET does the same), or name it in"
            " ignore_startup_parameters of pgbouncer.ini"
        )
    return "check AGENTOS_DSN (or --dsn) and that the server runs; without a DSN the embedded server is used"


def reason(exc: psycopg.OperationalError) -> str:
    """libpq's first line: what failed. Its second one only asks whether the server is running."""
    return (str(exc).strip().splitlines() or ["no reason given"])[0].removeprefix("connection failed: ")


def where(dsn: str) -> str:
    """Host, port and database of a DSN; never its password."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
