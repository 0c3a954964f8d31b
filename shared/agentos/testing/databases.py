"""Databases for tests: one server per test process, one migrated template, a fresh copy of it for each test.

`AGENTOS_TEST_DSN` (a URL, of a superuser) names the server; without it a private embedded one is started. That one runs
without fsync: a killed server process loses nothing by it, only a machine does, and no test stops a machine.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from agentos.core.presence import forget_guests
from agentos.store import connect as connecting
from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum_naptime": "1d",
}


@dataclass(slots=True)
class Databases:
    """A server on which databases are made from one migrated template."""

    admin_dsn: str
    template: str = field(default_factory=lambda: f"agentos_template_{os.getpid()}_{secrets.token_hex(3)}")
    made: int = 0
    left: list[str] = field(default_factory=list)
    _admin: psycopg.Connection[Any] | None = None

    def dsn(self, name: str) -> str:
        """The URL of the database `name` on this server."""
        return urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{name}"))

    def make_template(self) -> None:
        """Make and migrate the template. Called once, before `create`."""
        self._execute("CREATE DATABASE {} TEMPLATE template0", self.template)
        with connect(self.dsn(self.template)) as conn:
            migrate(conn)

    def create(self, *, empty: bool = False) -> str:
        """A new database; its DSN. `empty`: without the schema."""
        while self.left:
            self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.left.pop())
        self.made += 1
        name = f"{self.template.replace('template', 'test')}_{self.made}"
        self._execute(
            "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, "template0" if empty else self.template
        )
        return self.dsn(name)

    def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected; at the next `create`: a backend just leaving costs 0.1 s."""
        self.left.append(urlsplit(dsn).path[1:])

    def close(self) -> None:
        """Drop what is left, and the template."""
        for name in (*self.left, self.template):
            self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
        if self._admin:
            self._admin.close()

    def _execute(self, text: str, *names: str) -> None:
        if self._admin is None or self._admin.closed:
            self._admin = connect(self.admin_dsn)
        self._admin.execute(sql.SQL(text).format(*map(sql.Identifier, names)))


@contextmanager
def private_server(settings: Mapping[str, str], folder: str | None = None) -> Iterator[EmbeddedServer]:
    """An embedded server of its own, gone at the end. Its folder is one that the server's user can enter."""
    base = Path(tempfile.mkdtemp(prefix="agentos-pg-", dir=folder))
    base.chmod(0o711)
    server = EmbeddedServer(base.resolve() / "data", settings=settings, linger_s=0.3)
    try:
        yield server
    finally:
        server.stop(force=True)
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def open_databases() -> Iterator[Databases]:
    """The server of this test process, with its template."""
    given = os.environ.get("AGENTOS_TEST_DSN")
    if given:
        yield from _with_template(given)
    else:
        with private_server(FAST, fast_folder()) as embedded:
            yield from _with_template(embedded.ensure_running())


def fast_folder() -> str | None:
    """Memory, if there is enough: a copy of the template takes 20 ms there and 430 ms on a slow disk."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if roomy else None


def _with_template(admin_dsn: str) -> Iterator[Databases]:
    server = Databases(admin_dsn)
    server.make_template()
    try:
        yield server
    finally:
        server.close()


def forget_process_caches() -> None:
    """Shared pools, checked schemas and guest workers of this process: each belongs to one database."""
    forget_guests()
    for database in Database._shared.values():
        database.close()
    Database._shared.clear()
    connecting._ready.clear()
