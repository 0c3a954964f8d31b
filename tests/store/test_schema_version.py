"""What a probe compares with the version its process knows."""

from typing import Any

import psycopg
import pytest
from tests.drivers import Driver

from agentos.store.calls.workers import schema_version
from agentos.store.errors import SchemaMissing
from agentos.store.migrate import migrations


def test_it_is_the_newest_migration_that_was_applied(runner: Driver) -> None:
    assert runner.run(schema_version()) == migrations()[-1].version


@pytest.mark.unsound("the schema is dropped")
def test_a_schema_that_is_gone_is_said(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    conn.execute("DROP SCHEMA agentos CASCADE")
    with pytest.raises(SchemaMissing):
        runner.run(schema_version())
