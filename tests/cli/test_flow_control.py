"""`agentos queue` and `agentos limit`."""

import json

from tests.cli.conftest import Command

from agentos.store.calls import tasks
from agentos.store.connect import Database


def test_a_queue_is_paused_listed_and_resumed(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "shell", "t", "{}", queue="reports"))
    paused = agentos("queue", "pause", "reports", "--by", "ops", "--json")
    assert json.loads(paused.stdout) == {"queue": "reports", "paused": True, "changed": True}
    (row,) = json.loads(agentos("queue", "list", "--json").stdout)["queues"]
    assert (row["queue"], row["ready"], row["paused_by"]) == ("reports", 1, "ops")
    assert "paused" in agentos("queue", "list").stdout
    told = agentos("doctor").stdout
    assert "queue reports was paused by ops" in told
    assert "agentos queue resume reports" in told
    assert "queue reports is not paused" in agentos("queue", "resume", "reports").stdout
    assert "was not paused before" in agentos("queue", "resume", "reports").stdout


def test_limits_are_set_listed_and_cleared(agentos: Command, db: Database) -> None:
    agentos("limit", "set", "queue", "reports", "--concurrency", "10", "--rate", "100/60s", "--max-depth", "5")
    done = agentos("limit", "set", "all", "--concurrency", "500", "--json")
    limits = {
        (row["scope"], row["measure"]): (row["most"], row["period_s"]) for row in json.loads(done.stdout)["limits"]
    }
    assert limits == {
        ("all", "concurrency"): (500, None), ("queue", "concurrency"): (10, None), ("queue", "depth"): (5, None),
        ("queue", "rate"): (100, 60.0),
    }  # fmt: skip
    assert "100 in 60.0 s" in agentos("limit", "list").stdout
    assert "concurrency" not in agentos("limit", "clear", "queue", "reports", "--concurrency").stdout.split("all")[1]
    left = json.loads(agentos("limit", "clear", "queue", "reports", "--json").stdout)["limits"]
    assert [row["scope"] for row in left] == ["all"]
    assert "weight 3 (it had 1)" in agentos("limit", "weight", "acme", "3").stdout


def test_what_makes_no_sense_is_refused_with_the_fix(agentos: Command, db: Database) -> None:
    for args, said in (
        (("queue", "reports"), "no limit is given"), (("queue", "--rate", "5/s"), "names nothing"),
        (("moon", "x", "--rate", "5/s"), "no scope"), (("kind", "x", "--rate", "5/parsec"), "not N/TIME"),
        (("kind", "x", "--max-depth", "5"), "queue as a whole"),
    ):  # fmt: skip
        refused = agentos("limit", "set", *args)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_a_submit_says_its_tenant_and_is_unique(agentos: Command, db: Database) -> None:
    args = ("submit", "shell", '{"command": "date"}', "--tenant", "acme", "--unique-for", "60", "--json")
    first, again = json.loads(agentos(*args).stdout), json.loads(agentos(*args).stdout)
    assert (first["created"], again["created"]) == (True, False)
    assert again["task_id"] == first["task_id"]
