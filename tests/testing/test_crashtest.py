"""`agentos crashtest`: the matrix of every primitive, killed before, during and after each of its commits."""

import dataclasses
import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.cli.conftest import Command, agentos, zygote
from tests.coordinator.daemon import Daemon, until
from tests.store.test_surface import bodies

from agentos.cli.crashtest_progress import Watch
from agentos.store.calls import tasks
from agentos.store.connect import Database, connect
from agentos.store.errors import TaskExists
from agentos.testing import Pool
from agentos.testing.crash import CrashPoint, crash_points
from agentos.testing.crashtest import (
    PRIMITIVES,
    SCENARIOS,
    TRANSITIONS,
    Scenario,
    Transition,
    alone,
    places_of,
    run_crew,
    run_matrix,
)
from agentos.testing.crashtest.transition import KIND, Stage

__all__ = ["agentos", "zygote"]

NOT_KILLED = {
    "wake": "it only notifies: a hint, and whoever misses it polls",
    "wake_behind": "the same",
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


def test_a_session_that_still_works_is_waited_for(agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was killed: as long as it holds its locks, the call would be said again too early."""
    monkeypatch.setattr(alone, "LINGERS_S", 0.5)
    see = Stage.see

    def slowly(stage: Stage, *args: Any) -> Any:
        time.sleep(0.6)  # a busy machine: a look takes longer than a session that is idle is waited for
        return see(stage, *args)

    monkeypatch.setattr(Stage, "see", slowly)
    (look,) = (each for each in TRANSITIONS if each.name == "look_for_stuck")
    with psycopg.connect(agentos_pool.dsn) as conn, ThreadPoolExecutor(1) as beside:

        def arrange(stage: Stage) -> None:
            look.arrange(stage)
            conn.execute("LOCK TABLE agentos.events IN SHARE MODE")  # against writers: who looks may

        arranged = dataclasses.replace(look, arrange=arrange)
        played = beside.submit(alone.play, agentos_pool, arranged, CrashPoint("during", "look_for_stuck"), "look-again")
        until(lambda: waits_for_a_lock(agentos_pool), what="the call of the process that was killed waits")
        assert not wait([played], timeout=2.0).done
        conn.rollback()
        played.result()


def waits_for_a_lock(pool: Pool) -> bool:
    with connect(pool.dsn) as conn:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return conn.execute(waiting).fetchone() is not None


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
    assert "crashtest: 9 of 9 cells, 0 failed, " in shown.stderr
    assert [cell["when"] for cell in told["cells"]] == ["before", "during", "after"] * 3
    with connect(agentos_dsn) as conn:
        schemas = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'agentos%'").fetchall()
        assert schemas == [("agentos",)]
        assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)


def test_ctrl_c_prints_what_is_known_and_leaves_nothing_behind(agentos_dsn: str) -> None:
    only = ("item", "checkpoint", "tool_retry", "children")  # some 20 s, if nobody stops it
    playing = Daemon("agentos.cli", "crashtest", *(word for name in only for word in ("--only", name)), "--jobs", "2")
    try:
        playing.until_said("crashtest: 1 of 27 cells, 0 failed")
        crew = descendants(playing.process.pid)
        assert len(crew) >= 2
        playing.signal(signal.SIGINT)
        playing.signal(signal.SIGTERM)  # whoever loses patience changes nothing
        assert playing.ended() == 130
    finally:
        playing.close()
    assert playing.said("PRIMITIVE ")
    assert playing.said("were not played)")
    assert not playing.said("Traceback")
    until(lambda: not any(is_alive(pid) for pid in crew), what="its processes are gone")
    assert not schemas_of_crashtest(agentos_dsn)


def schemas_of_crashtest(dsn: str) -> list[tuple[str]]:
    with connect(dsn) as conn:
        return conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'agentos_crash%'").fetchall()


def descendants(pid: int) -> set[int]:
    children = {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*map(descendants, children))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_cell_whose_process_is_lost_fails_and_the_others_are_played(
    agentos_pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = os.getpid()

    def fall(_stage: Stage) -> int:
        assert os.getpid() != leader
        os._exit(1)

    lost = Transition("lost", "takes down who plays it", lambda *_: None, fall, 1, calls=("beat",))
    sound = next(each for each in TRANSITIONS if each.name == "lane_of")
    places = [next(places_of([lost])), *places_of([sound])]
    with Watch(len(places), 2, line_s=0) as watch:
        cells = []
        for cell in run_crew(agentos_pool.dsn, ["agentos", "agentos"], places, tmp_path, began=watch.began):
            watch.ended(cell)
            cells.append(cell)
    assert sorted((cell.scenario, cell.holds) for cell in cells) == [("lane_of", True)] * 3 + [("lost", False)]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "crashtest: 4 cells, 2 at a time"
    assert "FAILS lost before:beat: the process that played it ended; see stderr" in said
    assert said[-1].startswith("crashtest: 4 of 4 cells, 1 failed, ")


def test_a_primitive_that_is_not_there_is_refused_with_those_that_are(agentos: Command) -> None:
    refused = agentos("crashtest", "--only", "nothing")
    assert refused.returncode == 2
    assert "tool_probe" in refused.stderr
