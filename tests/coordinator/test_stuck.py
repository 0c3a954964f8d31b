"""The leading coordinator says by itself what stands still."""

import json
from collections.abc import Callable

import pytest
from tests.coordinator.daemon import Daemon, until
from tests.store import engine

from agentos.store.calls import timeline
from agentos.store.calls.stuck import stuck_counts
from agentos.store.connect import Database


def test_without_anybody_asking_work_that_nobody_serves_is_told_of_once_and_when_it_is_over(
    db: Database, start: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_STUCK_S", "0.1")
    engine.submit(db, "task-lost", kind="nobodys")
    leader = start()
    line = json.loads(leader.until_said("tasks stand still"))
    assert (line["level"], line["reason"], line["count"], line["task_ids"]) == (
        "warning", "unroutable", 1, ["task-lost"],
    )  # fmt: skip
    assert "agentos doctor" in line["fix"]
    assert db.run(stuck_counts())["unroutable"] == 1
    engine.register(db, kinds=["nobodys"], ttl_s=60)
    assert json.loads(leader.until_said("tasks go on"))["task_ids"] == ["task-lost"]
    assert until(lambda: db.run(stuck_counts())["unroutable"] == 0)
    events = [each.event for each in db.run(timeline.task_events("task-lost", 100))]
    assert sorted(events) == ["stuck", "unstuck"]
    assert len([each for each in leader.lines if "tasks stand still" in each]) == 1
