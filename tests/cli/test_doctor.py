"""`agentos doctor`: each thing that can be wrong is found, with its fix."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.cli.test_show import call_tool
from tests.store import engine

from agentos.core.process import new_worker_id
from agentos.store.calls import tasks, timeline, workers
from agentos.store.connect import Database
from agentos.testing.clock import Clock

Conn = psycopg.Connection[Any]
# The test server runs without fsync, which the doctor says; every test sees these.
ALWAYS = {"not_durable"}


def findings(db: Database, old_s: float = 60.0) -> dict[str, dict[str, Any]]:
    return {each.finding: each.data for each in db.run(timeline.findings(old_s)) if each.finding not in ALWAYS}


def told(done: subprocess.CompletedProcess[str], name: str) -> dict[str, Any]:
    return next(each for each in json.loads(done.stdout)["findings"] if each["finding"] == name)


def test_nothing_is_found_in_a_pool_that_works(db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    HandWorker(db).claim()
    db.run(workers.lead("coordinator", new_worker_id(), 60))
    db.run(tasks.submit("task-2", "work", "a title", "{}", delay_s=60))
    assert findings(db) == {}


def test_what_is_wrong_is_told_with_its_fix_and_an_exit_code(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "shell", "a title", "{}"))
    text = agentos("doctor")
    assert text.returncode == 1
    assert "items of kind shell are ready in queue default" in text.stdout
    assert "Fix: start one: agentos-worker --queue default --allow-kind shell" in text.stdout
    done = agentos("doctor", "--json", "--deep")
    assert done.returncode == 1
    assert told(done, "unroutable")["data"]["served"] == []
    assert json.loads(done.stdout)["workers_alive"] == 0


def test_a_worker_that_does_not_beat_and_what_it_holds(db: Database, clock: Clock) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db, ttl_s=1, label="silent")
    item = worker.claim()
    clock.advance(30)
    found = findings(db)
    assert found["late_worker"]["label"] == "silent"
    assert found["late_worker"]["late_s"] >= 28
    assert (found["orphaned_lease"]["item_id"], found["orphaned_lease"]["task_id"]) == (item.item_id, "task-1")
    assert found["nobody_leads"]["late_workers"] is True


def test_scheduled_items_without_a_coordinator(db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}", delay_s=60))
    assert findings(db)["nobody_leads"]["next_due_s"] > 50


def test_a_call_in_doubt(db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db)
    call_tool(db, worker, worker.claim(), "send it", finish=False)
    assert "in_doubt" not in findings(db)
    db.run(workers.declare_dead([worker.worker_id]))
    found = findings(db)["in_doubt"]
    assert (found["task_id"], found["tool"], found["on_doubt"]) == ("task-1", "bash", "fail")


def test_a_quarantined_item(db: Database, conn: Conn) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db)
    worker.claim()
    conn.execute("UPDATE agentos.lease_held SET crashes = 2")
    db.run(workers.declare_dead([worker.worker_id]))
    db.run(workers.reclaim())
    assert findings(db)["quarantined"]["crashes"] == 3


def test_an_old_transaction_is_named_by_its_pid(agentos: Command, db: Database, database_dsn: str) -> None:
    with psycopg.connect(database_dsn, application_name="forgotten") as old:
        old.execute("SELECT 1")
        done = agentos("doctor", "--old", "0", "--json")
        finding = told(done, "old_transaction")
        assert finding["data"]["pid"] == old.info.backend_pid
        assert f"pg_terminate_backend({old.info.backend_pid})" in finding["fix"]
        assert "old_transaction" not in findings(db, old_s=3600)


def test_a_shifted_clock(agentos: Command, db: Database, clock: Clock) -> None:
    assert "clock_shifted" not in findings(db)
    clock.advance(20)
    found = told(agentos("doctor", "--json"), "clock_shifted")
    assert found["data"] == {"offset_s": 20}
    with psycopg.connect(clock.dsn, autocommit=True) as owner:
        owner.execute(found["fix"])
    assert "clock_shifted" not in findings(db)


def test_a_pooler_in_between_is_told_with_what_to_do(
    agentos: Command, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert '"pooled"' not in agentos("doctor", "--json").stdout
    monkeypatch.setenv("AGENTOS_POOLER", "transaction")
    done = agentos("doctor", "--json")
    found = told(done, "pooled")
    assert found["severity"] == "note"
    assert "session mode" in found["fix"]


def test_settings_that_may_lose_commits(db: Database, conn: Conn) -> None:
    if conn.execute("SHOW fsync").fetchone() == ("on",):
        pytest.skip("this server is durable")
    (found,) = [f.data for f in db.run(timeline.findings()) if f.data.get("setting") == "fsync"]
    assert found == {"setting": "fsync", "value": "off"}


def test_partitions_that_end_soon(db: Database, clock: Clock) -> None:
    clock.advance(5 * 86_400)
    assert findings(db)["partitions_short"]["days_ahead"] <= 2


def test_an_approval_that_waits_is_told_but_is_not_wrong(agentos: Command, db: Database, conn: Conn) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db)
    db.run(engine.ask(worker.fence(worker.claim()), "publish?", "{}"))
    assert findings(db)["awaits_approval"]["question"] == "publish?"
    assert told(agentos("doctor", "--json"), "awaits_approval")["severity"] == "note"


@pytest.mark.unsound("an item is lost, to see it found")
def test_a_lost_item_is_found_by_a_deep_look(agentos: Command, db: Database, conn: Conn) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    conn.execute("DELETE FROM agentos.lease_ready")
    assert told(agentos("doctor", "--deep", "--json"), "misplaced")["data"]["places"] == 0


def test_a_database_that_cannot_be_used_is_an_error(agentos: Command, empty_database: str) -> None:
    done = agentos("doctor", "--dsn", empty_database, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["hint"] == "run `agentos migrate`, or start with --migrate"


def test_an_unreachable_database_is_told_on_stderr_too(agentos: Command) -> None:
    done = agentos("doctor", "--dsn", "postgresql://nobody@127.0.0.1:1/none", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["message"] in done.stderr


def test_functions_of_another_version(agentos: Command, conn: Conn) -> None:
    conn.execute("UPDATE agentos.engine SET digest = 'other'")
    done = agentos("doctor", "--json")
    assert done.returncode == 3
    assert "agentos migrate" in json.loads(done.stdout)["error"]["hint"]


def test_every_finding_has_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentos.cli import findings as words  # noqa: PLC0415  a name beside the function of this file

    class Anything(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            known = {
                "question": "",
                "task_id": "task-1",
                "kind": "shell",
                "next_due_s": None,
                "served": [1],
                "table": None,
                "missing": ["vacuum_truncate = off"],
                "versions": {"0.1.0": 1, "0.2.0": 2},
                "blockers": [],
                "query": "",
                "name": "reports",
                "queue": "default",
            }
            return known.get(key, 1)

    say: Callable[..., Any] = words.told
    for name in words._TEXTS:
        assert say(timeline.Finding(name, Anything())).message


def test_a_task_of_a_version_that_nobody_runs_is_told_everywhere(agentos: Command, db: Database) -> None:
    HandWorker(db)
    assert agentos("submit", "work", "--task-id", "task-1", "--version", "2").returncode == 0
    data = told(agentos("doctor", "--json"), "unroutable")["data"]
    assert (data["kind"], data["version"], data["served"], data["task_id"]) == ("work", 2, [0], "task-1")
    reason = "no living worker runs version 2 of work in queue default, only 0"
    assert json.loads(agentos("tasks", "--json").stdout)["tasks"][0]["reason"] == reason
    assert reason in agentos("show", "task-1").stdout
