"""The pytest plugin. Loaded by every pytest run of an environment that has agentos: it imports nothing of it by itself.

`AGENTOS_TEST_DSN` (a URL, of a superuser) names a server to make databases on; default: a private embedded one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentos.testing.clock import Clock
    from agentos.testing.databases import Databases
    from agentos.testing.pool import Pool


@pytest.fixture(scope="session")
def agentos_databases() -> Iterator[Databases]:
    """A server with a migrated template; one per test process."""
    from agentos.testing.databases import open_databases  # noqa: PLC0415  start-up: most runs ask for none of this

    with open_databases() as databases:
        yield databases


@pytest.fixture
def agentos_dsn(agentos_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh migrated database, named by `AGENTOS_DSN` during the test; afterwards every item must be in one place."""
    from agentos.testing.databases import forget_process_caches  # noqa: PLC0415  start-up
    from agentos.testing.soundness import assert_sound  # noqa: PLC0415  start-up

    dsn = agentos_databases.create()
    monkeypatch.setenv("AGENTOS_DSN", dsn)
    yield dsn
    forget_process_caches()
    try:
        assert_sound(dsn)
    finally:
        agentos_databases.drop(dsn)


@pytest.fixture
def agentos_clock(agentos_dsn: str) -> Clock:
    """The clock of the test's database: `agentos_clock.advance(3600)`."""
    from agentos.testing.clock import Clock  # noqa: PLC0415  start-up

    return Clock(agentos_dsn)


@pytest.fixture
def agentos_pool(agentos_dsn: str, agentos_clock: Clock) -> Pool:
    """`agentos_pool.drain(app)` works until nothing is ready."""
    from agentos.testing.pool import Pool  # noqa: PLC0415  start-up

    return Pool(agentos_dsn, agentos_clock)
