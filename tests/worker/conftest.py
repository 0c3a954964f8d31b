"""A pool of processes for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worker.pool import Pool, Sweeping

from agentos.store.connect import Database


def pytest_configure(config: pytest.Config) -> None:
    """`-m "not slow"` leaves out what takes more than ten seconds."""
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


@pytest.fixture
def pool(database_dsn: str, db: Database, tmp_path: Path) -> Iterator[Pool]:
    """Processes on the test's database."""
    made = Pool(database_dsn, tmp_path / "effects.log", db)
    yield made
    made.close()


@pytest.fixture
def sweeping(db: Database) -> Iterator[Sweeping]:
    """Leases of the dead are reclaimed and due items promoted, all the time."""
    with Sweeping(db) as made:
        yield made


@pytest.fixture
def hurrying(db: Database) -> Iterator[Sweeping]:
    """The same, and nobody waits for a retry: what is scheduled is due."""
    with Sweeping(db, hurry=True) as made:
        yield made
