"""`tell` and `stream`: fenced, in order, and nothing can appear before what was read."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls.items import Fence, release
from agentos.store.calls.stream import BEGINNING, Told, stream, tell
from agentos.store.errors import InvalidInput


def held(runner: Driver, task_id: str) -> Fence:
    """An item of a task of this name, held by a worker of its own."""
    engine.submit(runner, task_id)
    worker = engine.register(runner)
    return worker.fence(worker.claim()[0])


def test_what_was_told_is_read_in_order_and_from_a_cursor(runner: Driver) -> None:
    fence = held(runner, "task-1")
    assert runner.run(tell(fence.worker_id, [Told(fence, 1, "log", {"n": n}) for n in range(5)])) == 5
    events = runner.run(stream("task-1"))
    assert [(e.event, e.data, e.attempt) for e in events] == [("log", {"n": n}, 1) for n in range(5)]
    assert [e.data["n"] for e in runner.run(stream("task-1", events[1].cursor))] == [2, 3, 4]
    assert [e.data["n"] for e in runner.run(stream("task-1", BEGINNING, 2))] == [0, 1]
    assert runner.run(stream("task-1", events[-1].cursor)) == ()
    assert runner.run(stream("another")) == ()


def test_an_item_that_is_lost_tells_nothing_and_its_neighbour_does(runner: Driver) -> None:
    lost = held(runner, "lost")
    kept = held(runner, "kept")
    stale = Fence(lost.item_id, lost.worker_id, uuid4())
    assert runner.run(tell(lost.worker_id, [Told(stale, 1, "log", {"n": 1})])) == 0
    assert runner.run(tell(kept.worker_id, [Told(kept, 1, "log", {"n": 2}), Told(lost, 1, "log", {"n": 3})])) == 1
    runner.run(release(lost.worker_id, [(lost.item_id, lost.token)]))
    assert runner.run(tell(lost.worker_id, [Told(lost, 1, "log", {"n": 3})])) == 0
    assert runner.run(stream("lost")) == ()
    assert [e.data for e in runner.run(stream("kept"))] == [{"n": 2}]


@pytest.mark.parametrize("last", ["old", "new"])
def test_of_two_attempts_of_one_item_in_one_process_only_the_later_one_tells(runner: Driver, last: str) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    old, new = _two_attempts(runner, worker)
    assert runner.run(tell(worker.worker_id, [old, new] if last == "new" else [new, old])) == 1
    assert [(e.data, e.attempt) for e in runner.run(stream("task-1"))] == [({"n": 2}, 2)]


def _two_attempts(runner: Driver, worker: engine.Worker) -> list[Told]:
    told = []
    for n in (1, 2):
        (item,) = worker.claim()
        told.append(Told(worker.fence(item), n, "log", {"n": n}))
        if n == 1:
            runner.run(release(worker.worker_id, [(item.item_id, item.token)]))
    return told


def test_an_event_waits_for_those_that_may_still_come_before_it(runner: Driver, database_dsn: str) -> None:
    fence = held(runner, "task-1")
    note = "SELECT agentos.note('task-1', NULL, %s, NULL, NULL, '{}')"
    with psycopg.connect(database_dsn) as slow:
        slow.execute(note, ["first"])
        runner.run(tell(fence.worker_id, [Told(fence, 1, "log", {})]))
        assert runner.run(stream("task-1")) == ()  # `first` is not committed, and comes before
        slow.commit()
    assert [e.event for e in runner.run(stream("task-1"))] == ["first", "log"]


@pytest.mark.parametrize("cursor", ["", "1", "x.y", "1.2.3", "-1.0"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="not a cursor"):
        stream("task-1", cursor)


def test_an_item_that_this_attempt_has_parked_still_tells(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    fence = held(runner, "task-1")
    conn.execute("SELECT agentos.park(%s, %s, %s, 'signal', NULL)", [fence.worker_id, fence.item_id, fence.token])
    assert runner.run(tell(fence.worker_id, [Told(fence, 1, "log", {"n": 1})])) == 1
    assert runner.run(tell(fence.worker_id, [Told(fence, 2, "log", {"n": 2})])) == 0
    assert [(e.data, e.attempt) for e in runner.run(stream("task-1"))] == [({"n": 1}, 1)]
