"""A PgBouncer of the test's own in front of a real server: transaction pooling, as Debian packages it.

Bookworm's 1.18 knows no prepared statements of its clients: the hard case.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agentos.testing.databases import Databases

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
USER = "postgres"
POOLER = "AGENTOS_TEST_POOLER"

CONFIG = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = {address}
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
; Each transaction in another session than the one before, wherever there are two.
server_round_robin = 1
default_pool_size = 20
max_client_conn = 400
logfile = {folder}/log
pidfile = {folder}/pid
{settings}
"""


@contextmanager
def pgbouncer(
    server_dsn: str, *, mode: str = "transaction", address: str = "127.0.0.1", tls: tuple[bytes, bytes] | None = None
) -> Iterator[str]:
    """One in front of the server of `server_dsn`: its `address:port`. Skips the test where there is none.

    `tls`: its certificate and key; it then takes connections with TLS only.
    """
    if PROGRAM is None:
        pytest.skip("no pgbouncer on this machine (Debian: apt-get install pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="agentos-pgbouncer-"))
    port = free_port(address)
    config = folder / "pgbouncer.ini"
    settings = _tls(folder, *tls) if tls else ""
    config.write_text(
        CONFIG.format(**_server(server_dsn), address=address, listen=port, mode=mode, folder=folder, settings=settings)
    )
    argv = [PROGRAM, str(config)]
    if os.geteuid() == 0:  # it refuses to be root
        argv[1:1] = ["-u", USER]
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, USER)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_it_listens(process, address, port, folder)
        yield f"{address}:{port}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _tls(folder: Path, certificate: bytes, key: bytes) -> str:
    for name, content in (("cert.pem", certificate), ("key.pem", key)):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    where = {"client_tls_cert_file": "cert.pem", "client_tls_key_file": "key.pem"}
    return "client_tls_sslmode = require\n" + "\n".join(f"{name} = {folder}/{file}" for name, file in where.items())


def through(pooler: str, dsn: str) -> str:
    """The DSN of the same database, by way of the pooler."""
    return f"postgresql://agentos@{pooler}{urlsplit(dsn).path}"


@dataclass(slots=True)
class Behind(Databases):
    """The databases of a server, each reached by way of a pooler; they are made and dropped without it."""

    pooler: str = ""

    def create(self, *, empty: bool = False) -> str:
        """A new database; its DSN."""
        return through(self.pooler, Databases.create(self, empty=empty))


def _server(dsn: str) -> dict[str, str]:
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = parts.hostname or query.get("host", ["127.0.0.1"])[0]
    return {
        "host": host, "port": str(parts.port or query.get("port", ["5432"])[0]), "user": parts.username or "agentos",
        "password": f"password={parts.password}" if parts.password else "",
    }  # fmt: skip


def _until_it_listens(process: subprocess.Popen[bytes], address: str, port: int, folder: Path) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            log = folder / "log"
            told = log.read_text() if log.exists() else ""
            assert process.poll() is None, f"pgbouncer ended: {told}"
            assert time.monotonic() < end, f"pgbouncer does not listen: {told}"
            time.sleep(0.02)
        else:
            return


def free_port(address: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])
