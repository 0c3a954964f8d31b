"""TLS: the right host is let in, a wrong, expired or unknown certificate is refused, and plain text stays at home.

PgBouncer ends the TLS (the embedded server is built without), in session mode and declared to be no pooler, so that
asyncpg is what speaks.
"""

import datetime
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.drivers import LoopThread
from tests.pgbouncer import pgbouncer

from agentos.store.calls import workers
from agentos.store.connect import AsyncDatabase, Database, connect
from agentos.store.errors import ConfigInvalid, TransportRefused
from agentos.store.transport import for_asyncpg, is_here, must_encrypt
from agentos.testing.databases import Databases

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
LANES = workers.lanes_of(["default"], ["shell"])
Connects = Callable[[str], None]


@pytest.fixture(autouse=True)
def no_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_POOLER", "none")


@pytest.fixture(params=["psycopg", "asyncpg", "pool"])
def connects(request: pytest.FixtureRequest, loop_thread: LoopThread) -> Connects:
    """Connects and makes a call, over psycopg, asyncpg or the blocking pool."""

    def over_psycopg(dsn: str) -> None:
        connect(dsn).close()

    def over_asyncpg(dsn: str) -> None:
        async def ask() -> None:
            db = await AsyncDatabase.open(dsn)
            await db.run(LANES)
            await db.close()

        loop_thread.wait(ask())

    def over_the_pool(dsn: str) -> None:
        connect(dsn).close()  # as every program does first; a pool alone would wait and try again
        db = Database(dsn)
        db.run(LANES)
        db.close()

    return {"psycopg": over_psycopg, "asyncpg": over_asyncpg, "pool": over_the_pool}[request.param]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def root(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file that `sslrootcert` names."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def migrated(test_server: Databases) -> Iterator[str]:
    """A database that all tests of this module only read."""
    dsn = test_server.create()
    yield dsn
    test_server.drop(dsn)


def files(issued: trustme.LeafCert) -> tuple[bytes, bytes]:
    """Certificate and key."""
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes()


def named(migrated: str, address: str, **query: object) -> str:
    """The DSN by way of `address`."""
    database = migrated.rpartition("/")[2] if "?" not in migrated else migrated.partition("?")[0].rpartition("/")[2]
    return f"postgresql://agentos@{address}/{database}?" + "&".join(f"{name}={value}" for name, value in query.items())


def test_the_right_host_is_let_in(connects: Connects, migrated: str, authority: trustme.CA, root: Path) -> None:
    with pgbouncer(migrated, mode="session", tls=files(authority.issue_cert("localhost", "127.0.0.1"))) as address:
        for host in (address, address.replace("127.0.0.1", "localhost")):
            connects(named(migrated, host, sslmode="verify-full", sslrootcert=root))


@pytest.mark.parametrize("what", ["wrong host", "expired", "self-signed"])
def test_a_certificate_that_proves_nothing_is_refused(
    connects: Connects, migrated: str, authority: trustme.CA, root: Path, what: str
) -> None:
    issued = {
        "wrong host": lambda: authority.issue_cert("db.example"),
        "expired": lambda: authority.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=LONG_AGO),
        "self-signed": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }[what]()
    with pgbouncer(migrated, mode="session", tls=files(issued)) as address:
        with pytest.raises(TransportRefused, match="not accepted") as told:
            connects(named(migrated, address, sslmode="verify-full", sslrootcert=root))
        assert "sslrootcert" in (told.value.hint or "")
        connects(named(migrated, address, sslmode="require"))  # which asks for no proof


def test_a_server_without_tls_is_refused_where_it_is_required(connects: Connects, migrated: str, root: Path) -> None:
    with pgbouncer(migrated, mode="session") as address:
        with pytest.raises(TransportRefused, match="offers no TLS") as told:
            connects(named(migrated, address, sslmode="verify-full", sslrootcert=root))
        assert "AGENTOS_ALLOW_PLAINTEXT" in (told.value.hint or "")


def test_a_root_certificate_that_is_not_there_is_told(connects: Connects, migrated: str, authority: trustme.CA) -> None:
    with (
        pgbouncer(migrated, mode="session", tls=files(authority.issue_cert("127.0.0.1"))) as address,
        pytest.raises(TransportRefused, match="root certificate file") as told,
    ):
        connects(named(migrated, address, sslmode="verify-full", sslrootcert="/nowhere/ca.pem"))
    assert "sslrootcert" in (told.value.hint or "")


def test_plain_text_to_another_host_is_refused_unless_told(
    connects: Connects, migrated: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine by its name counts as another host: no name but localhost is looked up."""
    name = socket.gethostname()
    try:
        here = socket.gethostbyname(name)
        socket.create_server((here, 0)).close()
    except OSError as exc:
        pytest.skip(f"the name of this machine leads to no address of it: {exc}")
    with pgbouncer(migrated, mode="session", address=here) as address:
        by_name = address.replace(here, name)
        for said in ({}, {"sslmode": "prefer"}):
            with pytest.raises(TransportRefused, match="plain text to another host is refused"):
                connects(named(migrated, by_name, **said))
        connects(named(migrated, by_name, sslmode="disable"))
        monkeypatch.setenv("AGENTOS_ALLOW_PLAINTEXT", "true")
        connects(named(migrated, by_name))
        monkeypatch.delenv("AGENTOS_ALLOW_PLAINTEXT")
    with pgbouncer(migrated, mode="session", address=here, tls=files(authority.issue_cert(name))) as address:
        connects(named(migrated, address.replace(here, name)))  # nothing said, and it is encrypted


@pytest.mark.parametrize(
    ("dsn", "required"),
    [
        ("postgresql:///d", False),
        ("postgresql:///d?host=/run/postgresql", False),
        ("postgresql://u@localhost/d", False),
        ("postgresql://u@127.0.0.2:6432/d", False),
        ("postgresql://u@[::1]/d", False),
        ("postgresql://u@db.example/d?hostaddr=127.0.0.1", False),
        ("postgresql://u@db.example/d", True),
        ("postgresql://u@db.example/d?sslmode=prefer", True),
        ("postgresql://u@db.example/d?sslmode=allow", True),
        ("postgresql://u@db.example/d?sslmode=disable", False),
        ("postgresql://u@db.example/d?sslmode=require", False),
        ("postgresql://u@db.example/d?sslmode=verify-full", False),
        ("postgresql://u@192.0.2.7/d", True),
        ("postgresql://u@localhost.example/d", True),
        ("postgresql://u@localhost:1,db.example:2/d", True),
        ("postgresql:///d?service=production", True),
    ],
)
def test_what_may_go_in_plain_text(dsn: str, required: bool) -> None:
    assert must_encrypt(dsn) is required
    assert ("ssl" in for_asyncpg(dsn)) is required


def test_the_environment_counts_as_the_dsn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert must_encrypt("postgresql:///d")
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert not must_encrypt("postgresql:///d")
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.setenv("AGENTOS_ALLOW_PLAINTEXT", "perhaps")
    with pytest.raises(ConfigInvalid, match="AGENTOS_ALLOW_PLAINTEXT"):
        must_encrypt("postgresql://u@db.example/d")


def test_addresses_of_this_machine() -> None:
    assert [is_here(host) for host in ("", "/tmp", "@sock", "a.localhost", "::ffff:127.0.0.1")] == [True] * 5
    assert [is_here(host) for host in ("10.0.0.1", "::ffff:10.0.0.1", "vm", "fe80::1%eth0")] == [False] * 4


def test_what_only_libpq_knows_is_not_sent_to_the_server(connects: Connects, migrated: str) -> None:
    with pgbouncer(migrated, mode="session") as address:
        connects(named(migrated, address, connect_timeout=5, keepalives_idle=3, channel_binding="prefer"))


def test_the_authorities_of_this_machine_may_be_named() -> None:
    options = for_asyncpg("postgresql://u@db.example/d?sslmode=verify-full&sslrootcert=system&application_name=a")
    assert options["dsn"] == "postgresql://u@db.example/d?application_name=a"
    assert (options["ssl"].verify_mode, options["ssl"].check_hostname) == (ssl.CERT_REQUIRED, True)
