"""`agentos doubts` and `agentos resolve`."""

import json

import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker

from agentos.core.identity import tool_identity
from agentos.store.calls import doubts, ledger, tasks
from agentos.store.connect import Database


@pytest.fixture
def doubt(db: Database) -> str:
    """The id of the question that task team/task-1 waits for."""
    db.run(tasks.submit("team/task-1", "work", "work", "{}"))
    worker = HandWorker(db)
    item = worker.claim()
    fence = worker.fence(item)
    call = tool_identity("team/task-1", item.item_id, "charge", {"id": 7}, key=None, ordinal=0, nth=1)
    begun = db.run(ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="ask", produces="[]", expires_s=60))
    assert begun.call_token
    db.run(doubts.ask_doubt(begun.call_token, call, fence, worker.worker_id, "charge was begun", park=True))
    return str(begun.call_token)


def test_every_call_in_doubt_is_listed_with_what_is_needed_to_decide(agentos: Command, doubt: str) -> None:
    text = agentos("doubts").stdout
    for shown in ("team/task-1", doubt[:8], "parked", "charge", "7"):
        assert shown in text
    (told,) = json.loads(agentos("doubts", "team/task-1", "--json").stdout)["doubts"]
    assert (told["doubt_id"], told["arguments"], told["parked"]) == (doubt, {"id": 7}, True)
    assert len(told["idempotency_key"]) == 64
    assert told["host"]


def test_an_answer_lets_the_task_go_on_once(agentos: Command, doubt: str, db: Database) -> None:
    named = f"team/task-1/{doubt[:8]}"
    done = agentos("resolve", named, "--done", '{"charged": 1}', "--by", "alice", "--json")
    assert json.loads(done.stdout) == {
        "task_id": "team/task-1", "doubt_id": doubt, "answer": "done", "by": "alice", "became": "ready"
    }  # fmt: skip
    assert db.run(tasks.task_items("team/task-1"))[0].place == "ready"
    again = agentos("resolve", named, "--not-done")
    assert again.returncode != 0
    assert "nothing is asked about task team/task-1" in again.stderr
    assert json.loads(agentos("doubts", "--json").stdout) == {"doubts": []}


def test_the_only_question_of_a_task_needs_no_name(agentos: Command, doubt: str) -> None:
    assert agentos("resolve", "team/task-1", "--fail", "--by", "bob").stdout == "fail, says bob; its item failed\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "--done [RESULT]"), (("--done", "--fail"), "--done [RESULT]"), (("{}", "--fail"), "RESULT with --done"),
     (("--done", "{broken"), "RESULT is not JSON")],
)  # fmt: skip
def test_an_answer_that_says_nothing_is_refused(
    agentos: Command, doubt: str, arguments: tuple[str, ...], said: str
) -> None:
    refused = agentos("resolve", "team/task-1", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_task_that_is_not_there_has_no_doubts(agentos: Command, db: Database) -> None:
    assert agentos("doubts", "nobody").returncode == 5
    assert agentos("resolve", "nobody", "--done").returncode != 0
