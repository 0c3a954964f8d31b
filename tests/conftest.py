"""Fixtures of all tests: a database of one's own, both drivers, the clock.

Who asks for none of the database fixtures gets no database, and no server is started for it.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import structlog
from tests.drivers import Asyncpg, Driver, LoopThread, Psycopg
from tests.object_store import Bucket, new_bucket, s3_server
from tests.pgbouncer import POOLER, Behind, pgbouncer

from agentos.store.connect import AsyncDatabase, Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.testing.clock import Clock
from agentos.testing.databases import Databases, forget_process_caches, open_databases, private_server
from agentos.testing.soundness import assert_sound


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of this suite."""
    config.addinivalue_line("markers", "unsound(reason): the test damages its database; it is not checked afterwards")
    # A shell's background job ignores SIGINT, and every process it starts does too: Ctrl-C would reach none of ours.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of whoever runs the tests reaches them, and what a process remembers of a database goes with it."""
    for name in os.environ:
        if name.startswith("AGENTOS_") and name not in ("AGENTOS_TEST_DSN", POOLER):
            monkeypatch.delenv(name)
    structlog.reset_defaults()  # whoever configured it for this process: a test says what it wants itself
    yield
    forget_process_caches()


@pytest.fixture(scope="session")
def test_server() -> Iterator[Databases]:
    """The Postgres of this test process (of each one under xdist); with `AGENTOS_TEST_POOLER=1` its databases are
    reached by way of a PgBouncer.
    """
    with open_databases() as server:
        if os.environ.get(POOLER) != "1":
            yield server
            return
        with pgbouncer(server.admin_dsn) as pooler:
            yield Behind(server.admin_dsn, server.template, pooler=pooler)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3-compatible server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of the test's own; the environment names its server."""
    return new_bucket(s3_endpoint, monkeypatch)


@pytest.fixture
def database_dsn(
    test_server: Databases, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A fresh migrated database; `AGENTOS_DSN` names it during the test, and afterwards it must be sound."""
    dsn = test_server.create()
    monkeypatch.setenv("AGENTOS_DSN", dsn)
    yield dsn
    try:
        forget_process_caches()
        if request.node.get_closest_marker("unsound") is None:
            assert_sound(dsn)
    finally:
        test_server.drop(dsn)


@pytest.fixture
def empty_database(test_server: Databases) -> Iterator[str]:
    """The DSN of a database without the schema."""
    dsn = test_server.create(empty=True)
    yield dsn
    forget_process_caches()
    test_server.drop(dsn)


@pytest.fixture
def db(database_dsn: str) -> Iterator[Database]:
    """The blocking handle on the test's database."""
    database = Database(database_dsn)
    yield database
    database.close()


@pytest.fixture
async def adb(database_dsn: str) -> AsyncIterator[AsyncDatabase]:
    """The awaited handle on the test's database."""
    database = await AsyncDatabase.open(database_dsn)
    yield database
    await database.close()


@pytest.fixture
def conn(database_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection in autocommit, to look and to arrange."""
    with connect(database_dsn) as connection:
        yield connection


@pytest.fixture
def clock(database_dsn: str) -> Clock:
    """The clock of the test's database, for every session at once: `clock.advance(20)`."""
    return Clock(database_dsn)


@pytest.fixture
def own_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """`own_server()`: an embedded server that the test may stop and restart; durable unless `settings` differ."""
    with ExitStack() as opened:
        yield lambda settings=None: opened.enter_context(private_server(settings or {}))


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    """An event loop on a thread, for asyncpg in tests that block."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(params=["psycopg", "asyncpg"])
def runner(request: pytest.FixtureRequest, database_dsn: str) -> Iterator[Driver]:
    """Runs any call through either driver, blocking; `runner.session()` is one connection with its own transactions."""
    driver: Driver
    if request.param == "psycopg":
        driver = Psycopg(database_dsn)
    else:
        driver = Asyncpg(database_dsn, request.getfixturevalue("loop_thread"))
    yield driver
    driver.close()
