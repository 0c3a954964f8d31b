"""`agentos purge` asks, or is told not to."""

import json

from tests.cli.conftest import Command

from agentos.store.calls import tasks
from agentos.store.connect import Database


def test_nobody_to_ask_is_refused_and_yes_purges(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "shell", "a title", '{"command": "date"}'))
    assert agentos("purge", "task-1", "--yes").returncode != 0  # it is open
    db.run(tasks.cancel_task("task-1"))
    refused = agentos("purge", "task-1")
    assert refused.returncode == 2
    assert "say --yes" in refused.stderr
    done = agentos("purge", "task-1", "--yes", "--by", "compliance", "--json")
    assert json.loads(done.stdout) == {"task_id": "task-1", "tasks": 1}
    shown = json.loads(agentos("show", "task-1", "--json").stdout)
    assert shown["events"][-1]["data"] == {"by": "compliance"}
    assert "date" not in json.dumps(shown["items"])
    assert agentos("wait", "task-1").returncode != 0
