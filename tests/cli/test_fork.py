"""`agentos fork`."""

import json

import pytest
from tests.cli.conftest import Command
from tests.cli.test_rewind import failed

from agentos.store.calls import tasks
from agentos.store.connect import Database

__all__ = ["failed"]


@pytest.mark.usefixtures("failed")
def test_a_dry_run_lists_what_has_happened_and_makes_nothing(agentos: Command, db: Database) -> None:
    text = agentos("fork", "team/task-1", "--from", "0", "--dry-run").stdout
    for shown in ("charge", '"id":7', "replayed", "nothing was made", "recorded calls replay unless"):
        assert shown in text.replace(": ", ":") or shown in text
    told = json.loads(
        agentos("fork", "team/task-1", "--from", "0", "--dry-run", "--re-execute", "charge", "--json").stdout
    )
    assert [(each["call"]["tool_name"], each["becomes"]) for each in told["calls"]] == [("charge", "executed_again")]
    assert (told["done"], told["from_task"], told["from_seq"]) == (False, "team/task-1", 0)
    assert db.run(tasks.get_task(told["task_id"])) is None


@pytest.mark.usefixtures("failed")
def test_a_fork_is_made_once_under_its_id_and_its_story_says_whence(agentos: Command, db: Database) -> None:
    arguments = ("fork", "team/task-1", "--from", "0", "--task-id", "again", "--by", "alice")
    assert "again begins at checkpoint 0 of team/task-1: 1 open item(s)" in agentos(*arguments).stdout
    assert db.run(tasks.task_items("again"))[0].place == "ready"
    assert db.run(tasks.task_items("team/task-1"))[0].status == "failed"
    story = agentos("show", "again").stdout
    for shown in ("forked", "team/task-1", "alice", "charge"):
        assert shown in story
    refused = agentos(*arguments)
    assert (refused.returncode, "again exists already" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("team/task-1", "--from", "9"), 5, "0 is the beginning"),
        (("nobody", "--from", "0"), 5, "nobody"),
        (("team/task-1", "--from", "0", "--re-execute", "bash"), 2, "called were: charge"),
    ],
)
@pytest.mark.usefixtures("failed")
def test_a_fork_that_cannot_be_says_why(agentos: Command, arguments: tuple[str, ...], code: int, said: str) -> None:
    refused = agentos("fork", *arguments)
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr
