"""Coordinators that end with the test."""

from collections.abc import Callable, Iterator

import pytest
from tests.coordinator.daemon import Daemon, close_all, coordinator


@pytest.fixture
def start(database_dsn: str) -> Iterator[Callable[..., Daemon]]:
    """`start("--once")`: a coordinator process on the test's database (or `dsn=`)."""
    started: list[Daemon] = []

    def begin(*args: str, dsn: str = database_dsn) -> Daemon:
        started.append(coordinator(dsn, *args))
        return started[-1]

    yield begin
    close_all(started)
