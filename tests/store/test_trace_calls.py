"""What a task carries of its trace, and the attempt that could not tell of itself, over both drivers."""

from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import tasks, traces, workers
from agentos.testing.clock import Clock

PARENT = f"00-{1:032x}-{2:016x}-01"


def test_a_task_carries_what_was_sent_with_it(runner: Driver) -> None:
    call = tasks.submit("task-1", "work", "a title", "{}")
    item_id = runner.run(traces.with_trace(call, ["task-1"], PARENT, "vendor=1"))
    origin = runner.run(traces.trace_of("task-1", item_id, 1))
    assert origin is not None
    assert (origin.traceparent, origin.tracestate, origin.lost) == (PARENT, "vendor=1", None)
    runner.run(tasks.submit("task-2", "work", "a title", "{}"))
    untraced = runner.run(traces.trace_of("task-2", item_id + 1, 1))
    assert untraced is not None
    assert untraced.traceparent is None
    assert runner.run(traces.trace_of("task-3", 1, 1)) is None


def test_the_attempt_before_is_told_if_its_lease_was_taken_back(runner: Driver, clock: Clock) -> None:
    runner.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = engine.register(runner, kinds=["work"], ttl_s=1)
    (item,) = worker.claim()
    clock.advance(30)
    runner.run(workers.reclaim())
    origin = runner.run(traces.trace_of("task-1", item.item_id, 2))
    assert origin is not None
    assert origin.lost is not None
    assert (origin.lost.worker_id, origin.lost.claimed_at) == (worker.worker_id, item.claimed_at)
    assert (origin.lost.at - origin.lost.claimed_at).total_seconds() >= 30
    again = runner.run(traces.trace_of("task-1", item.item_id, 1))
    assert again is not None
    assert again.lost is None
