"""`agentos retention`, and what the other commands say of a task that was retired."""

import json

from tests.cli.conftest import Command
from tests.cli.pool import HandWorker

from agentos.store.calls import retention, tasks, workers
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
