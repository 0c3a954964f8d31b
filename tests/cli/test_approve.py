"""`agentos approve` with one question and with several: by number, by how its id begins, and what it says otherwise."""

import json
from hashlib import sha256

import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker

from agentos.core.identity import tool_identity
from agentos.store.calls import tasks, waits
from agentos.store.connect import Database


@pytest.fixture
def asking(db: Database) -> HandWorker:
    """task-1 asks two questions at once, from branches of its handler."""
    db.run(tasks.submit("task-1", "work", "work", "{}"))
    worker = HandWorker(db)
    item = worker.claim()
    for n, question in enumerate(("publish?", "delete?")):
        call = tool_identity("task-1", item.item_id, "@approval", question, key=None, ordinal=0, nth=1)
        shown = sha256(b"{}").hexdigest()
        asked = waits.ask(
            call, worker.fence(item), question, "{}", shown, options=["a", "b"] if n else None, park=n == 1
        )
        db.run(asked)
    return worker


def open_now(agentos: Command) -> dict[int, tuple[str, str]]:
    told = json.loads(agentos("approve", "task-1", "--list", "--json").stdout)
    return {
        each["number"]: (each["question"]["question_id"], each["question"]["question"])
        for each in told["questions"]
        if each["question"]["open"]
    }


@pytest.mark.usefixtures("asking")
def test_with_several_and_none_named_it_lists_them(agentos: Command) -> None:
    refused = agentos("approve", "task-1")
    assert refused.returncode == 2
    for shown in (
        "2 questions of task task-1 are open",
        "1. ",
        "publish?",
        "2. ",
        "delete? (a | b)",
        "approve task-1 1",
    ):
        assert shown in refused.stderr


@pytest.mark.usefixtures("asking")
def test_a_number_stays_that_of_its_question_and_the_last_one_needs_none(agentos: Command) -> None:
    assert [name for _, name in open_now(agentos).values()] == ["publish?", "delete?"]
    assert "publish? no" in agentos("approve", "task-1", "1", "--reject").stdout
    again = agentos("approve", "task-1", "1")
    assert (again.returncode, "was answered no by" in again.stderr) == (2, True), "it is not the other one"
    assert list(open_now(agentos)) == [2]
    assert "delete? b" in agentos("approve", "task-1", "--option", "b").stdout
    nothing = agentos("approve", "task-1")
    assert (nothing.returncode, "no question that is open" in nothing.stderr) == (2, True)


@pytest.mark.usefixtures("asking")
def test_how_its_id_begins_is_enough_as_argument_and_as_option(agentos: Command) -> None:
    ids = {name: question for question, name in open_now(agentos).values()}
    assert "delete? a" in agentos("approve", "task-1", "--question", ids["delete?"][:12], "--option", "a").stdout
    assert "publish? yes" in agentos("approve", "task-1", ids["publish?"][:12]).stdout
    for named in ("9", "zz"):
        refused = agentos("approve", "task-1", named)
        assert (refused.returncode, f"number or id {named}" in refused.stderr) == (2, True)
