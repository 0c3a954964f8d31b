"""`agentos crashtest`: the matrix of every primitive, killed before, during and after each of its commits."""

import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
from tests.cli.conftest import Command, agentos, zygote
from tests.store.test_surface import bodies

from agentos.store.calls import tasks
from agentos.store.connect import Database, connect
from agentos.store.errors import TaskExists
from agentos.testing import Pool
from agentos.testing.crash import crash_points
from agentos.testing.crashtest import PRIMITIVES, SCENARIOS, TRANSITIONS, Scenario, Transition, run_matrix
from agentos.testing.crashtest.transition import KIND, Stage

__all__ = ["agentos", "zygote"]

NOT_KILLED = {
    "wake": "it only notifies: a hint, and whoever misses it polls",
}
"""Calls that write and are not in the matrix, with the reason."""
WRITES = re.compile(
    r"\b(?:INSERT INTO|DELETE FROM|(?<!FOR )(?<!KEY )(?<!DO )UPDATE) agentos\.|\b(?:EXECUTE|pg_notify)\b"
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_or_done_twice_wherever_a_process_dies(
    scenario: Scenario, agentos_pool: Pool, tmp_path: Path
) -> None:
    cells = list(run_matrix(agentos_pool, [scenario], tmp_path))
    assert len(cells) == 3 * len(scenario.calls)
    assert [cell for cell in cells if not cell.holds] == []


def writing() -> set[str]:
    """The functions that write, or call one that does."""
    code = {name: re.sub(r"--.*", "", body) for name, body in bodies().items()}
    calls = {name: set(re.findall(r"agentos\.(\w+)\(", body)) & code.keys() for name, body in code.items()}
    found = {name for name, body in code.items() if WRITES.search(body)}
    while more := {name for name in code.keys() - found if calls[name] & found}:
        found |= more
    return found


def test_every_call_that_commits_something_is_killed_around_its_commit() -> None:
    """A new one belongs into a scenario, or is a `Transition` (agentos.testing.crashtest.transitions)."""
    found = writing()
    assert {"submit", "beat", "complete", "wake"} <= found
    assert not {"clock", "list_tasks", "enter_fence"} & found
    killed = {call for each in PRIMITIVES for call in each.calls}
    assert (found & set(crash_points())) - killed == NOT_KILLED.keys()


def test_a_call_by_itself_is_done_whole_or_not_and_may_be_said_again(agentos_pool: Pool, tmp_path: Path) -> None:
    cells = list(run_matrix(agentos_pool, TRANSITIONS, tmp_path))
    assert len(cells) == 3 * sum(len(each.calls) for each in TRANSITIONS)
    assert [cell for cell in cells if not cell.holds] == []


def test_what_is_half_done_or_done_twice_is_told(agentos_pool: Pool, tmp_path: Path) -> None:
    def in_two_commits(stage: Stage, db: Database) -> None:
        for task_id in stage.ids(2):
            db.run(tasks.submit(task_id, KIND, "half", "{}", queue=stage.name))

    def of_its_queue(stage: Stage) -> int:
        return sum(task.queue == stage.name for task in stage.run(tasks.list_tasks(1000)))

    halves = Transition(
        "halves", "two submits", in_two_commits, of_its_queue, 2, calls=("submit",), refused=(TaskExists,)
    )
    (half,) = [cell for cell in run_matrix(agentos_pool, [halves], tmp_path) if cell.when == "after"]
    assert half.trouble == "killed after:submit, 1 is to be seen, and not 2"

    def under_a_new_id(stage: Stage, db: Database) -> None:
        db.run(tasks.submit(uuid4().hex, KIND, "twice", "{}", queue=stage.name))

    twice = Transition("twice", "a submit without a key", under_a_new_id, of_its_queue, 1, calls=("submit",))
    cells = {cell.when: cell for cell in run_matrix(agentos_pool, [twice], tmp_path)}
    assert cells["before"].holds
    assert cells["after"].trouble == "said again, 2 is to be seen, and not 1"


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
