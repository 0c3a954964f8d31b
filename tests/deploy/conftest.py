"""Fixtures of the tests that run containers; without an engine they skip and say why."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.coordinator.daemon import until
from tests.deploy.engine import Engine, build_image, refused
from tests.deploy.fleet import Fleet

from agentos.store.connect import connect
from agentos.store.errors import DatabaseUnavailable
from agentos.store.migrate import migrate


@pytest.fixture(scope="session")
def image() -> None:
    """The image of this checkout is there."""
    if reason := refused():
        pytest.skip(reason)
    build_image()


@pytest.fixture(scope="session")
def engine(image: None) -> Iterator[Engine]:
    """A network with a Postgres that answers."""
    with Engine() as started:

        def answers() -> bool:
            try:
                connect(started.outer_dsn("postgres")).close()
            except DatabaseUnavailable:
                return False
            return True

        until(answers, timeout_s=60, what="Postgres in its container")
        yield started


@pytest.fixture
def empty_fleet(engine: Engine, tmp_path: Path) -> Iterator[Fleet]:
    """Containers of this test, on a database without the schema."""
    database = f"d{uuid.uuid4().hex[:10]}"
    with connect(engine.outer_dsn("postgres")) as conn:
        conn.execute(f'CREATE DATABASE "{database}"'.encode())
    effects = tmp_path / "effects"
    effects.mkdir()
    effects.chmod(0o777)  # for uid 65532
    subprocess.run(["chmod", "a+rx", *map(str, tmp_path.parents[:3]), str(tmp_path)], check=False)
    yield Fleet(engine, database, effects)
    engine.clear()


@pytest.fixture
def fleet(empty_fleet: Fleet) -> Fleet:
    """The same, migrated by this checkout."""
    with connect(empty_fleet.dsn) as conn:
        migrate(conn)
    return empty_fleet
