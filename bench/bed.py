"""Where a benchmark runs: a database of its own, made for the run and dropped after it, and how long it may take."""

import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from agentos.core.presence import package_version
from agentos.store.connect import connect, locate
from agentos.store.migrate import migrate
from agentos.store.settings import load_settings
from bench import layout

SHOWN = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "wal_sync_method")


@dataclass(frozen=True, slots=True)
class Bed:
    """A fresh database and the size of the run."""

    dsn: str
    quick: bool
    looker: psycopg.Connection[Any]
    """For `rows`: a connection of its own for each look would cost a new server process each time."""
    plots: dict[str, str] = field(default_factory=dict)
    """SVG texts by name."""

    @property
    def rounds(self) -> int:
        """How many turns each figure gets."""
        return 3 if self.quick else 5

    def size(self, full: int) -> int:
        """`full`, or less in a quick run."""
        return max(1, full // 4) if self.quick else full

    def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self.looker.execute(query.encode(), args).fetchall()

    def about(self) -> dict[str, str]:
        """Machine, versions and settings, for the report."""
        found = {name: str(self.rows(f"SHOW {name}")[0][0]) for name in SHOWN}
        return {
            "agentos": package_version(), "python": platform.python_version(), "machine": platform.machine(),
            "cores": str(os.cpu_count()), "load_before": f"{os.getloadavg()[0]:.2f}", **found,
        }  # fmt: skip


@contextmanager
def fresh_bed(*, quick: bool) -> Iterator[Bed]:
    """A migrated database, and in it the schema `raw` of the baselines, on the server of AGENTOS_DSN, else on the
    embedded one. `AGENTOS_DSN` names it while the block runs, for the processes started by then.
    """
    server = locate(load_settings()).dsn
    name = f"bench_{secrets.token_hex(4)}"
    dsn = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    before = os.environ.get("AGENTOS_DSN")
    with connect(server) as admin:
        _execute(admin, "CREATE DATABASE {}", name)
    os.environ["AGENTOS_DSN"] = dsn
    try:
        with connect(dsn) as conn:
            migrate(conn)
            conn.execute(b"SELECT agentos.ensure_partitions()")
            layout.make(conn)
            yield Bed(dsn, quick, conn)
    finally:
        os.environ.pop("AGENTOS_DSN")
        if before is not None:
            os.environ["AGENTOS_DSN"] = before
        with connect(server) as admin:
            _execute(admin, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextmanager
def spare_database(bed: Bed) -> Iterator[str]:
    """The DSN of an empty database on the same server, dropped at the end."""
    name = f"bench_{secrets.token_hex(4)}"
    with connect(bed.dsn) as admin:
        _execute(admin, "CREATE DATABASE {}", name)
        try:
            yield urlunsplit(urlsplit(bed.dsn)._replace(path=f"/{name}"))
        finally:
            _execute(admin, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextmanager
def migrated_database(bed: Bed) -> Iterator[str]:
    """The same with the engine in it."""
    with spare_database(bed) as dsn:
        with connect(dsn) as conn:
            migrate(conn)
            conn.execute(b"SELECT agentos.ensure_partitions()")
        yield dsn


def _execute(conn: psycopg.Connection[Any], text: str, name: str) -> None:
    conn.execute(sql.SQL(text).format(sql.Identifier(name)))
