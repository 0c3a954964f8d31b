"""A primary and its standby: two servers of the test's own on loopback, made with the embedded binaries."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from tests.coordinator.daemon import until
from tests.pgbouncer import free_port

from agentos.store.connect import connect
from agentos.store.embedded.binaries import wheel
from agentos.store.embedded.owner import Owner, owner_of
from agentos.testing.databases import fast_folder

SETTINGS = ("fsync=off", "shared_buffers=64MB", "max_connections=100", "wal_level=replica", "hot_standby=on")


@dataclass(slots=True)
class Server:
    """One server; its data are in `folder`."""

    folder: Path
    port: int
    owner: Owner
    programs: Path

    @property
    def dsn(self) -> str:
        """Of this one alone."""
        return f"postgresql://agentos@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *args: str) -> None:
        """Run a program of Postgres as the servers' user."""
        done = self.owner.run([self.programs / program, *args])
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        where = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.run(
            "pg_ctl", "-D", str(self.folder), "-w", "-l", f"{self.folder}.log", "-o", f"{options} {where}", "start"
        )

    def kill(self) -> None:
        """kill -9 of all its processes."""
        postmaster = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def promote(self) -> None:
        """Make the standby a primary; returns when it takes writes."""
        self.run("pg_ctl", "-D", str(self.folder), "-w", "promote")

    def execute(self, text: str) -> None:
        """Run one statement here."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(text.encode())


@dataclass(slots=True)
class Pair:
    """`primary` and its asynchronous `standby`; `dsn` names both, and means whichever takes writes."""

    primary: Server
    standby: Server

    @property
    def dsn(self) -> str:
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://agentos@{hosts}/postgres?target_session_attrs=read-write"

    def until_replayed(self) -> None:
        """Wait until the standby has all that the primary has."""
        with connect(self.primary.dsn) as one, connect(self.standby.dsn) as two:
            row = one.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
            until(lambda: two.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,))

    def fall_behind(self) -> None:
        """The standby gets nothing any more: what commits from now on is lost by a failover."""
        self.standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.execute("SELECT pg_reload_conf()")
        with connect(self.primary.dsn) as conn:
            until(lambda: conn.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (0,))


@contextmanager
def standby_pair() -> Iterator[Pair]:
    """Both, running; gone at the end."""
    base = Path(tempfile.mkdtemp(prefix="agentos-pair-", dir=fast_folder()))
    owner = owner_of(base / "none")
    if owner.switch:
        os.chown(base, owner.uid, owner.gid)
    programs = wheel().package / "pginstall" / "bin"
    pair = Pair(*(Server(base / name, free_port(), owner, programs) for name in ("primary", "standby")))
    try:
        pair.primary.run(
            "initdb", "-D", str(pair.primary.folder), "-U", "agentos", "--auth=trust", "--encoding=UTF8", "--no-sync"
        )
        pair.primary.start()
        source = f"host=127.0.0.1 port={pair.primary.port} user=agentos"
        backup = ("-D", str(pair.standby.folder), "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        pair.primary.run("pg_basebackup", *backup)
        pair.standby.start()
        yield pair
    finally:
        for server in (pair.primary, pair.standby):
            with suppress(FileNotFoundError, psutil.NoSuchProcess):
                server.kill()
        shutil.rmtree(base, ignore_errors=True)
