"""Listing and operating tasks, and the workers."""

import json
from io import StringIO
from typing import cast

import pytest
from rich.console import Console
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.store import engine

from agentos.cli import output
from agentos.store.calls import items, statistics, tasks
from agentos.store.connect import Database


def submit(db: Database, task_id: str) -> None:
    db.run(tasks.submit(task_id, "work", f"title of {task_id}", "{}"))


def test_tasks_are_listed_newest_first_in_plain_columns(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    submit(db, "task-2")
    done = agentos("tasks")
    header, newest, oldest = done.stdout.splitlines()
    assert header.split() == ["TASK", "STATUS", "KIND", "TITLE", "CREATED", "TOOK", "REASON"]
    assert newest.split()[:2] == ["task-2", "created"]
    assert oldest.split()[:2] == ["task-1", "created"]
    assert "\x1b" not in done.stdout


def test_tasks_of_one_status(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    submit(db, "task-2")
    worker = HandWorker(db)
    worker.fail(worker.claim())
    found = json.loads(agentos("tasks", "--status", "failed", "--json").stdout)["tasks"]
    assert [(task["task_id"], task["reason"]) for task in found] == [("task-1", "it broke")]
    wrong = agentos("tasks", "--status", "asleep")
    assert wrong.returncode == 2
    assert "Invalid value for '--status': 'asleep' is not one of created" in wrong.stderr


@pytest.mark.parametrize("command", ["wait", "cancel", "pause", "resume", "retry", "approve", "show"])
def test_an_id_that_no_task_has_leads_to_the_list(agentos: Command, database_dsn: str, command: str) -> None:
    done = agentos(command, "nope", "--json")
    assert done.returncode == 5
    assert "Fix: list the newest ones: agentos tasks\n" in done.stderr
    assert json.loads(done.stdout)["error"]["hint"] == "list the newest ones: agentos tasks"


def test_a_reason_is_the_first_line_of_its_message(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    worker = HandWorker(db)
    worker.fail(worker.claim(), "it has None\\nFix: give it one")
    assert agentos("tasks").stdout.splitlines()[1].endswith("it has None")
    ended = agentos("wait", "task-1")
    assert ended.stdout.endswith(": it has None\n")
    assert ended.stderr.endswith("Fix: give it one\n")


@pytest.mark.parametrize("fold", [True, False])
def test_on_a_narrow_terminal_ids_stay_whole_and_the_rest_gives_way(
    monkeypatch: pytest.MonkeyPatch, fold: bool
) -> None:
    screen = Console(file=StringIO(), force_terminal=True, width=80, soft_wrap=True, color_system=None)
    monkeypatch.setattr(output, "out", screen)
    task_id = "task-0123456789abcdef0123456789abcdef"
    columns = ("task", "status", "kind", "title", "created", "took", "reason")
    rows = [(task_id, "failed", "research", "", "12 min ago", "0.42 s", "it broke " * 9)]
    output.print_table(columns, rows, fold=fold)
    lines = cast(StringIO, screen.file).getvalue().splitlines()
    assert sum(task_id in line for line in lines) == 1
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert "title" not in lines[0]
    assert fold or len(lines) == 3


def test_what_a_task_says_cannot_steer_the_terminal(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "\x1b[31mred\nnext [bold]x[/bold] :smile:", "{}"))
    lines = agentos("tasks").stdout.splitlines()
    assert len(lines) == 2
    assert "\x1b" not in lines[1]
    assert "[bold]x[/bold] :smile:" in lines[1]


def test_a_task_is_cancelled_and_opened_again(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    assert json.loads(agentos("cancel", "task-1", "--reason", "wrong input", "--json").stdout)["status"] == "cancelled"
    task = db.run(tasks.get_task("task-1"))
    assert task is not None
    assert (task.status, task.reason) == ("cancelled", "wrong input")
    assert "task-1 goes on" not in agentos("cancel", "task-1").stdout
    assert agentos("cancel", "task-2").returncode == 5
    # A ready item of a cancelled task ends when it is claimed; by hand, so that there is something to open again.
    worker = HandWorker(db)
    item = worker.claim()
    assert item.cancelled
    db.run(items.fail(worker.fence(item), '{"message": "cancelled"}', terminal=True, status="cancelled"))
    assert "1 item(s) are open again" in agentos("retry", "task-1").stdout
    worker.complete(worker.claim())
    refused = agentos("retry", "task-1")
    assert refused.returncode == 2
    assert "only a failed or cancelled task" in refused.stderr


def test_an_approval_is_given_with_the_name_of_who_gave_it(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    worker = HandWorker(db)
    item = worker.claim()
    db.run(engine.ask(worker.fence(item), "publish?", '{"pages": 3}'))
    assert "publish?" in agentos("show", "task-1").stdout
    done = agentos("approve", "task-1", "--by", "alice")
    assert done.returncode == 0
    assert "publish? yes" in done.stdout
    assert db.run(engine.approval_of(item.item_id)) is True
    assert agentos("approve", "task-1").returncode == 2


def test_a_rejection_is_an_answer_too(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    worker = HandWorker(db)
    item = worker.claim()
    db.run(engine.ask(worker.fence(item), "publish?", "{}"))
    told = json.loads(agentos("approve", "task-1", "--reject", "--json").stdout)
    assert (told["approved"], [each["question"] for each in told["questions"]]) == (False, ["publish?"])
    assert db.run(engine.approval_of(item.item_id)) is False


def test_workers_are_listed_and_their_ids_survive_json(agentos: Command, db: Database) -> None:
    assert "no worker is alive" in agentos("workers").stderr
    submit(db, "task-1")
    worker = HandWorker(db, label="left-hand")
    worker.claim()
    (row,) = json.loads(agentos("workers", "--json").stdout)["workers"]
    assert (row["worker_id"], row["label"], row["state"], row["held"]) == (
        str(worker.worker_id),
        "left-hand",
        "alive",
        1,
    )
    line = agentos("workers").stdout.splitlines()[1]
    assert "left-hand" in line
    assert "work in default" in line


def test_a_task_is_paused_and_resumed(agentos: Command, db: Database) -> None:
    submit(db, "task-1")
    assert json.loads(agentos("pause", "task-1", "--json").stdout) == {"task_id": "task-1", "status": "paused"}
    assert agentos("pause", "task-1").stdout == "task-1 is paused\n"
    assert agentos("tasks", "--status", "paused").stdout.splitlines()[1].split()[:2] == ["task-1", "paused"]
    assert agentos("show", "task-1").stdout.split()[:2] == ["task-1", "paused"]
    worker = HandWorker(db)
    assert db.run(items.park_paused(worker.fence(worker.claim())))
    resumed = json.loads(agentos("resume", "task-1", "--json").stdout)
    assert (resumed["items"], resumed["status"]) == (1, "created")
    worker.complete(worker.claim())
    assert agentos("pause", "task-1").stdout == "task-1 had ended before: completed\n"


def test_statistics_are_what_the_coordinator_counted(agentos: Command, db: Database) -> None:
    empty = agentos("stats")
    assert "nothing was counted yet" in empty.stderr
    submit(db, "task-1")
    db.run(statistics.take_statistics(0))
    header, line = agentos("stats", "--queue", "default").stdout.splitlines()
    assert header.split()[:4] == ["QUEUE", "KIND", "VERSION", "READY"]
    assert line.split()[:4] == ["default", "work", "0", "1"]
    (found,) = json.loads(agentos("stats", "--json").stdout)["statistics"]
    assert (found["ready"], found["ready_exact"], found["completed_5m"]) == (1, True, 0)
    assert json.loads(agentos("stats", "--queue", "none", "--json").stdout) == {"statistics": []}
