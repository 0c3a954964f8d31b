"""`agentos rewind` and `agentos dead`."""

import json

import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker

from agentos.core.identity import tool_identity
from agentos.store.calls import ledger, tasks
from agentos.store.connect import Database


@pytest.fixture
def failed(db: Database) -> HandWorker:
    """Task team/task-1 called charge and failed."""
    db.run(tasks.submit("team/task-1", "work", "work", "{}"))
    worker = HandWorker(db)
    item = worker.claim()
    fence = worker.fence(item)
    call = tool_identity("team/task-1", item.item_id, "charge", {"id": 7}, key=None, ordinal=0, nth=1)
    begun = db.run(ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="ask", produces="[]", expires_s=60))
    assert begun.call_token
    db.run(
        ledger.ledger_finish(
            call.key, begun.call_token, fence, worker.worker_id, result="{}", exit_code=None, error=None
        )
    )
    worker.fail(item)
    return worker


def test_a_dry_run_says_what_becomes_of_each_call_and_changes_nothing(
    agentos: Command, failed: HandWorker, db: Database
) -> None:
    text = agentos("rewind", "team/task-1", "--to", "0", "--dry-run").stdout
    for shown in ("charge", '"id":7', "replayed", "nothing was changed", "recorded calls replay unless"):
        assert shown in text.replace(": ", ":") or shown in text
    told = json.loads(
        agentos("rewind", "team/task-1", "--to", "0", "--dry-run", "--re-execute", "charge", "--json").stdout
    )
    assert [(each["call"]["tool_name"], each["becomes"]) for each in told["calls"]] == [("charge", "executed_again")]
    assert (told["done"], told["to"], len(told["items"])) == (False, 0, 1)
    assert db.run(tasks.task_items("team/task-1"))[0].status == "failed"


def test_a_task_is_rewound_and_the_story_tells_it(agentos: Command, failed: HandWorker, db: Database) -> None:
    done = agentos("rewind", "team/task-1", "--to", "0", "--stub", 'charge={"charged": 1}', "--by", "alice")
    assert "team/task-1 goes on from checkpoint 0" in done.stdout
    assert "stubbed" in done.stdout
    assert db.run(tasks.task_items("team/task-1"))[0].place == "ready"
    story = agentos("show", "team/task-1").stdout
    assert "rewound" in story
    assert "alice" in story


def test_what_is_held_is_not_rewound(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-2", "work", "work", "{}"))
    HandWorker(db).claim()
    refused = agentos("rewind", "task-2", "--to", "0")
    assert refused.returncode == 2
    assert "agentos cancel task-2" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("team/task-1", "--to", "9"), 5, "0 is the beginning"),
        (("nobody", "--to", "0"), 5, "nobody"),
        (("team/task-1", "--to", "0", "--stub", "charge"), 2, "TOOL=JSON"),
        (("team/task-1", "--to", "0", "--stub", "charge={"), 2, "is not JSON"),
        (("team/task-1", "--to", "0", "--re-execute", "bash"), 2, "called were: charge"),
    ],
)
def test_a_rewind_that_cannot_be_says_why(
    agentos: Command, failed: HandWorker, arguments: tuple[str, ...], code: int, said: str
) -> None:
    refused = agentos("rewind", *arguments)
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr


def test_the_dead_are_listed_with_the_reason_and_what_a_retry_would_do(agentos: Command, failed: HandWorker) -> None:
    text = agentos("dead").stdout
    for shown in ("team/task-1", "it broke", "opens 1 item(s)", "from the beginning", "1 recorded call(s)"):
        assert shown in text
    (told,) = json.loads(agentos("dead", "--json").stdout)["tasks"]
    assert (told["task_id"], told["items"], told["replays"], told["questions"]) == ("team/task-1", 1, 1, 0)
