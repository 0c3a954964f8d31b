"""`agentos crashtest`: the matrix of every primitive, killed before, during and after each of its commits."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Command, agentos, zygote

from agentos.store.connect import connect
from agentos.testing import Pool
from agentos.testing.crashtest import SCENARIOS, Scenario, run_matrix

__all__ = ["agentos", "zygote"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_or_done_twice_wherever_a_process_dies(
    scenario: Scenario, agentos_pool: Pool, tmp_path: Path
) -> None:
    cells = list(run_matrix(agentos_pool, [scenario], tmp_path))
    assert len(cells) == 3 * len(scenario.calls)
    assert [cell for cell in cells if not cell.holds] == []


def test_the_command_prints_a_table_and_leaves_the_database_as_it_was(agentos: Command, agentos_dsn: str) -> None:
    shown = agentos("crashtest", "--only", "item", "--json")
    told = json.loads(shown.stdout)
    assert (shown.returncode, told["failed"], told["held"]) == (0, 0, 9), shown.stderr
    with connect(agentos_dsn) as conn:
        schemas = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'agentos%'").fetchall()
        assert schemas == [("agentos",)]
        assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)


def test_a_primitive_that_is_not_there_is_refused_with_those_that_are(agentos: Command) -> None:
    refused = agentos("crashtest", "--only", "nothing")
    assert refused.returncode == 2
    assert "tool_probe" in refused.stderr
