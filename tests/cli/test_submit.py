"""Submitting, and waiting for the end."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.coordinator.daemon import Daemon, until

from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import DatabaseUnavailable


def test_a_task_is_submitted_as_it_was_said(agentos: Command, db: Database) -> None:
    done = agentos(
        "submit", "work", '{"n": 12345678901234567890123}', "--task-id", "task-1", "--title", "a title",
        "--queue", "slow", "--max-attempts", "7", "--delay", "60", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    task, (item,) = db.run(tasks.get_task("task-1")), db.run(tasks.task_items("task-1"))
    assert task is not None
    assert (task.title, task.queue, task.payload) == ("a title", "slow", {"n": 12345678901234567890123})
    assert (item.kind, item.max_attempts, item.place) == ("work", 7, "scheduled")
    assert json.loads(done.stdout) == {"task_id": "task-1", "item_id": item.item_id, "created": True}


def test_the_payload_comes_from_stdin_or_a_file(agentos: Command, db: Database, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text('{"from": "file"}')
    first = agentos("submit", "work", "-", stdin='{"from": "stdin"}').stdout.strip()
    second = agentos("submit", "work", f"@{tmp_path / 'payload.json'}").stdout.strip()
    payloads = [task.payload for name in (first, second) if (task := db.run(tasks.get_task(name)))]
    assert payloads == [{"from": "stdin"}, {"from": "file"}]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ('{"a": 1', "not JSON: Expecting ',' delimiter (line 1, column 8)"),
        ("[1]", "not an object"),
        ('{"a": NaN}', "NaN"),
        ("-", "empty"),
        ("@/no/such/file", "cannot be read"),
    ],
)
def test_a_payload_that_cannot_be_used_is_refused(agentos: Command, db: Database, payload: str, says: str) -> None:
    done = agentos("submit", "work", payload)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Fix: " in done.stderr
    assert db.run(tasks.list_tasks()) == ()


@pytest.mark.parametrize(("kind", "key"), [("shell", "command"), ("llm", "prompt"), ("plan", "goal")])
def test_a_built_in_kind_without_what_it_needs_is_refused_at_submit(
    agentos: Command, db: Database, kind: str, key: str
) -> None:
    done = agentos("submit", kind, '{"other": 1}')
    assert done.returncode == 2
    assert f"it has no {key}" in done.stderr
    assert f"Fix: pass one, as in agentos submit {kind}" in done.stderr
    assert agentos("submit", kind, f'{{"{key}": " "}}').returncode == 2
    assert db.run(tasks.list_tasks()) == ()


def test_options_that_cannot_be_used_create_nothing(agentos: Command, db: Database) -> None:
    refused = agentos("submit", "work", "--timeout", "3")
    assert refused.returncode == 2
    assert "add --wait" in refused.stderr
    assert agentos("submit", "work", "--priority", "1000001").returncode == 2
    assert db.run(tasks.list_tasks()) == ()
    assert agentos("submit", "work", "--priority", "-1000000").returncode == 0


def test_a_task_id_that_is_taken_is_refused_with_the_fix(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    done = agentos("submit", "work", "--task-id", "task-1", "--json")
    assert done.returncode == 2
    assert "Error: task task-1 exists already" in done.stderr
    assert "Fix: " in done.stderr
    assert json.loads(done.stdout)["error"]["type"] == "TaskExists"


def test_it_says_when_nobody_alive_serves_the_kind(agentos: Command, db: Database) -> None:
    assert "no living worker runs shell" in agentos("submit", "shell", '{"command": "date"}').stderr
    HandWorker(db)
    assert agentos("submit", "work").stderr == ""


def _work_once(db: Database, *, fail: bool) -> threading.Thread:
    def work() -> None:
        until(lambda: db.run(tasks.list_tasks()))
        worker = HandWorker(db)
        item = worker.claim()
        worker.fail(item) if fail else worker.complete(item)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_submit_and_wait_prints_the_result(agentos: Command, db: Database) -> None:
    thread = _work_once(db, fail=False)
    done = agentos("submit", "work", "--wait", "--json", "--task-id", "task-1")
    thread.join()
    assert done.returncode == 0
    answer = {"task_id": "task-1", "status": "completed", "reason": None, "result": {"answer": 42}}
    assert json.loads(done.stdout) == answer


def test_submit_and_wait_fails_when_the_task_fails(agentos: Command, db: Database) -> None:
    thread = _work_once(db, fail=True)
    done = agentos("submit", "work", "--wait")
    thread.join()
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "it broke" in done.stdout


def test_waiting_ends_with_the_timeout(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    done = agentos("wait", "task-1", "--timeout", "0.1")
    assert done.returncode == 4
    assert "it goes on" in done.stderr


@pytest.mark.parametrize("command", [("wait", "task 1"), ("submit", "work", "--wait", "--task-id", "task 1")])
def test_ctrl_c_ends_the_waiting_and_says_how_to_go_on(db: Database, command: tuple[str, ...]) -> None:
    if command[0] == "wait":
        db.run(tasks.submit("task 1", "work", "a title", "{}"))
    waiting = Daemon("agentos.cli", *command)
    try:
        waiting.until_said("task 1 created")
        waiting.signal(signal.SIGINT)
        assert waiting.ended() == 130
        assert waiting.lines[-1] == "task 1 goes on; follow it again: agentos wait 'task 1'\n"
    finally:
        waiting.close()


def test_waiting_outlives_its_connections(db: Database, conn: psycopg.Connection[Any]) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    waiting = Daemon("agentos.cli", "wait", "task-1")
    try:
        waiting.until_said("task-1 created")
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        waiting.until_said("looking again")
        worker = until(lambda: _hand_worker(db))
        assert worker is not None
        worker.complete(worker.claim())
        assert waiting.ended() == 0
    finally:
        waiting.close()


def _hand_worker(db: Database) -> HandWorker | None:
    try:
        return HandWorker(db)
    except DatabaseUnavailable:  # this process's own connections were ended too
        return None


def test_waiting_for_an_unknown_task_is_said_at_once(agentos: Command, database_dsn: str) -> None:
    assert agentos("wait", "task-1").returncode == 5


def test_the_database_of_an_option_counts_more_than_the_variable(
    agentos: Command, db: Database, database_dsn: str
) -> None:
    elsewhere = {"AGENTOS_DSN": "postgresql://nobody@127.0.0.1:1/none"}
    assert agentos("submit", "work", "--dsn", database_dsn, env=elsewhere).returncode == 0
    unreachable = agentos("tasks", env=elsewhere)
    assert unreachable.returncode == 3
    assert "Fix: check AGENTOS_DSN" in unreachable.stderr
    assert len(db.run(tasks.list_tasks())) == 1


def test_said_again_under_its_key_it_is_the_same_task(agentos: Command, database_dsn: str) -> None:
    said = [agentos("submit", "shell", '{"command": "date"}', "--key", "k", "--json") for _ in range(2)]
    first, again = (json.loads(done.stdout) for done in said)
    assert (first["created"], again["created"], again["task_id"]) == (True, False, first["task_id"])
    refused = agentos("submit", "shell", '{"command": "true"}', "--key", "k")
    assert refused.returncode == 2
    assert "was used for another submit" in refused.stderr
