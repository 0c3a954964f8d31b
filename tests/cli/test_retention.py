"""`agentos retention`, and what the other commands say of a task that was retired."""

import json
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.store.test_blob_calls import BODIES, commit

from agentos.store.calls import blobs, retention, tasks, workers
from agentos.store.connect import Database
from agentos.testing.clock import Clock

DAY = 86_400


def end(db: Database, *names: str) -> None:
    """Tasks that completed."""
    worker = HandWorker(db)
    for name in names:
        db.run(tasks.submit(name, "work", "a title", "{}"))
        worker.complete(worker.claim())


def pass_days(db: Database, clock: Clock, days: float) -> None:
    clock.advance(days * DAY)
    db.run(workers.ensure_partitions())


def test_a_retired_task_says_when_it_went_and_how_it_had_ended(agentos: Command, db: Database, clock: Clock) -> None:
    end(db, "task-1")
    pass_days(db, clock, 31)
    db.run(retention.retire_slice(None, None, db.run(retention.database_time()), ("tasks",), 10))
    for cleared in (False, True):
        if cleared:
            assert db.run(retention.clear_retired(10, 10)) == 1
        shown = agentos("show", "task-1")
        assert (shown.returncode, "Traceback" in shown.stderr) == (5, False)
        assert "was retired at" in shown.stderr
        assert "it was completed at" in shown.stderr
        assert "was retired at" in json.loads(agentos("show", "task-1", "--json").stdout)["error"]["message"]
    for command in ("retry", "wait", "cancel"):
        assert agentos(command, "task-1").returncode == 5, command


def test_what_would_go_is_listed_and_goes_when_it_is_said(
    agentos: Command, db: Database, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    end(db, "task-1", "task-2")
    db.run(tasks.submit("open", "work", "a title", "{}"))
    pass_days(db, clock, 31)
    told = json.loads(agentos("retention", "--json").stdout)
    assert [(each["what"], each["days"], each["tasks"], each["all"]) for each in told["tasks"]] == [
        ("tasks", 30, 2, True)
    ]
    assert {each["parent"] for each in told["partitions"]} == {"outcomes", "events"}
    listed = agentos("retention").stdout
    assert "2 tasks" in listed
    assert told["partitions"][0]["name"] in listed
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (3,), "a look takes nothing away"
    done = agentos("retention", "--apply", "--json")
    assert done.returncode == 0
    did = json.loads(done.stdout)
    assert (did["retired"], sorted(did["partitions"])) == (2, sorted(each["name"] for each in told["partitions"]))
    assert conn.execute("SELECT task_id FROM agentos.task_records").fetchall() == [("open",)]
    assert agentos("retention", "--apply").stdout.startswith("retired 0 tasks")


def test_a_partition_that_cannot_go_is_told_here_and_by_doctor(
    agentos: Command, db: Database, clock: Clock, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_days(db, clock, 31)
    monkeypatch.setenv("AGENTOS_RETENTION_EVENTS_D", "never")
    with psycopg.connect(database_dsn) as reader:
        name = db.run(retention.partitions_due(db.run(retention.database_time()), None))[0].name
        reader.execute(
            psycopg.sql.SQL("LOCK TABLE agentos.{} IN ROW EXCLUSIVE MODE").format(psycopg.sql.Identifier(name))
        )
        done = agentos("retention", "--apply")
        assert (done.returncode, f"{name} cannot go" in done.stdout) == (1, True)
    found = json.loads(agentos("doctor", "--json").stdout)["findings"]
    assert [each["data"]["partition"] for each in found if each["finding"] == "partition_blocked"] == [name]
    assert agentos("retention", "--apply").returncode == 0


def test_a_task_without_its_records_says_so_and_goes_on_nowhere(agentos: Command, db: Database, clock: Clock) -> None:
    end(db, "task-1")
    db.run(commit("task-1"))
    assert json.loads(agentos("show", "task-1", "--json").stdout)["records_retired_at"] is None
    pass_days(db, clock, 8)
    assert (
        db.run(retention.retire_slice(None, None, db.run(retention.database_time()), ("checkpoints",), 10)).count == 1
    )
    shown = agentos("show", "task-1")
    assert (shown.returncode, "records were retired at" in shown.stdout) == (0, True)
    assert json.loads(agentos("show", "task-1", "--json").stdout)["records_retired_at"] is not None
    for command in (("rewind", "task-1", "--to", "1"), ("fork", "task-1", "--from", "1")):
        refused = agentos(*command)
        assert "records of task task-1 were retired" in refused.stderr, (command, refused.stderr)
        assert refused.returncode == 5


def test_parts_that_nothing_refers_to_are_counted_and_go_by_their_own_policy(
    agentos: Command, db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("task-1", "open"):
        db.run(tasks.submit(name, "work", "a title", "{}"))
    name, body = next(iter(BODIES.items()))
    db.run(commit("task-1"))
    db.run(commit("open", [name], {name: body}))
    db.run(blobs.drop_blobs("task-1"))
    clock.advance(601)
    assert json.loads(agentos("retention", "--json").stdout)["parts"]["count"] == 1
    assert "1 parts" in agentos("retention").stdout
    monkeypatch.setenv("AGENTOS_RETENTION_BLOBS_S", "never")
    assert json.loads(agentos("retention", "--apply", "--json").stdout)["parts"] == 0
    monkeypatch.setenv("AGENTOS_RETENTION_BLOBS_S", "600")
    assert json.loads(agentos("retention", "--apply", "--json").stdout)["parts"] == 1
    assert db.run(blobs.get_blobs(list(BODIES))) == {name: body}


def test_outcomes_cannot_go_before_their_task(agentos: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_RETENTION_OUTCOMES_D", "29")
    done = agentos("retention")
    assert done.returncode == 2
    assert "AGENTOS_RETENTION_OUTCOMES_D is shorter than AGENTOS_RETENTION_TASKS_D" in done.stderr


def test_records_cannot_outlive_their_task(agentos: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_RETENTION_LEDGER_D", "31")
    done = agentos("retention")
    assert done.returncode == 2
    assert "AGENTOS_RETENTION_LEDGER_D is longer than AGENTOS_RETENTION_TASKS_D (30 days)" in done.stderr
