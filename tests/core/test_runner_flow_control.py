"""A runner obeys limits and pauses as a worker does."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.store import engine

from agentos.core.runner import TaskRunner, turns
from agentos.store.calls import flow, items, tasks
from agentos.store.connect import Database
from agentos.store.errors import QueuePaused
from agentos.store.run import Call

PLAN = json.dumps([{"key": key, "kind": "shell", "payload": {"command": "true"}} for key in ("a", "b")])


def limited(db: Database) -> list[int]:
    return [each.lane for each in db.run(flow.served_lanes(["default"], ["shell"], [0])).lanes if each.limited]


def make(db: Database, task_id: str) -> None:
    db.run(tasks.create_task(task_id, "two commands", items=PLAN))


def test_a_paused_queue_is_an_error_that_says_what_to_do_and_nothing_is_touched(db: Database) -> None:
    make(db, "task-1")
    db.run(flow.pause_queue("default"))
    with pytest.raises(QueuePaused, match="'default' is paused") as paused:
        TaskRunner(db=db).run_task("task-1")
    assert "agentos queue resume default" in str(paused.value.hint)
    assert engine.status(db, "task-1") == "created"
    db.run(flow.resume_queue("default"))
    assert TaskRunner(db=db).run_task("task-1").status == "completed"


def test_a_runner_waits_for_room_without_using_up_iterations(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    db.run(flow.set_limit("kind", "shell", "concurrency", 1))
    worker = engine.register(db, ttl_s=600)
    engine.submit(db, "task-other")
    (held,) = db.run(items.claim_limited(worker.worker_id, 0, limited(db), 5))
    make(db, "task-1")
    looked, asked_often = itertools.count(1), threading.Event()
    held_back = items.held_back

    def counted(task_id: str) -> Call[str | None]:
        if next(looked) == 10:
            asked_often.set()
        return held_back(task_id)

    monkeypatch.setattr(items, "held_back", counted)
    monkeypatch.setattr(turns, "_LIMIT_POLL_S", 0.01)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(TaskRunner(db=db).run_task, "task-1", 3)
        assert asked_often.wait(30)
        assert engine.places(db, "task-1") == {"a": "ready", "b": "ready"}
        worker.complete(held)
        assert run.result(60).status == "completed"


def test_an_item_that_a_runner_holds_takes_its_place_under_a_limit(db: Database) -> None:
    db.run(flow.set_limit("kind", "shell", "concurrency", 1))
    make(db, "task-1")
    runner = engine.register(db, role="runner")
    (held,) = db.run(items.claim_task(runner.worker_id, 0, "task-1", 5))
    assert db.run(items.claim_task(runner.worker_id, 0, "task-1", 5)) == ()
    worker = engine.register(db)
    assert db.run(items.claim_limited(worker.worker_id, 0, limited(db), 5)) == ()
    db.run(items.complete(runner.worker_id, [(held.item_id, held.token, "1")]))
    assert len(db.run(items.claim_task(runner.worker_id, 0, "task-1", 5))) == 1
