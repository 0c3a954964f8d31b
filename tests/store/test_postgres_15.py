"""The oldest server that is supported: the core of these tests again, on `postgres:15` in a container."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# This machine reaches published ports on loopback, and the container is removed here: no reaper is needed.
DEFAULTS = {
    "TESTCONTAINERS_RYUK_DISABLED": "true",
    "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
    "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
}
IMAGE = "postgres:15"
HERE = Path(__file__).parent
CORE = ("test_migrate.py", "test_fence.py", "test_claim.py", "test_reclaim.py", "test_settle.py", "test_surface.py")


@pytest.fixture
def postgres_15() -> Iterator[str]:
    """The DSN of a superuser on a PostgreSQL 15 in a container."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Not at the top: testcontainers reads its environment when it is imported.
    docker = pytest.importorskip("docker")
    containers = pytest.importorskip("testcontainers.community.postgres")
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as exc:
        pytest.skip(f"no Docker engine answers: {exc}")
    container = containers.PostgresContainer(IMAGE, driver=None).with_tmpfs_mount("/var/lib/postgresql/data")
    container.with_command("-c fsync=off -c full_page_writes=off -c max_connections=200")
    try:
        container.start()
    except docker.errors.DockerException as exc:
        pytest.skip(f"{IMAGE} cannot be run here: {exc}")
    try:
        yield container.get_connection_url()
    finally:
        container.stop()


@pytest.mark.timeout(300)
def test_the_core_of_the_store_runs_on_postgres_15(postgres_15: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "not asyncpg",
            *(str(HERE / name) for name in CORE),
        ],
        env={**os.environ, "AGENTOS_TEST_DSN": postgres_15},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
