"""Going back to a checkpoint in the engine: what is open again, what is superseded, what becomes of recorded calls."""

import json
from typing import Any

import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, doubts, items, ledger, rewind, tasks
from agentos.store.errors import LeaseLost, TaskHeld, UnknownCheckpoint, UnknownTask

RE_EXECUTE = json.dumps({"bash": {"action": "re_execute"}})


def call(runner: Driver, worker: engine.Worker, item: Any, key: str, ordinal: int, *, finish: bool = True) -> None:
    identity = engine.tool_call(key, item_id=item.item_id, ordinal=ordinal)
    fence = worker.fence(item)
    begun = runner.run(
        ledger.ledger_begin(identity, fence, worker.worker_id, on_doubt="ask", produces="[]", expires_s=60)
    )
    assert begun.call_token
    if finish:
        runner.run(
            ledger.ledger_finish(
                key, begun.call_token, fence, worker.worker_id, result='{"n":1}', exit_code=None, error=None
            )
        )


def commit(runner: Driver, worker: engine.Worker, item: Any, ordinal: int) -> int:
    new = engine.checkpoint(item_id=item.item_id, ordinal=ordinal)
    return runner.run(checkpoints.commit_checkpoint(new, worker.fence(item))).sequence_number


def ran(runner: Driver) -> tuple[engine.Worker, Any]:
    """A task of one item: call-0, checkpoint 1, call-1, checkpoint 2, call-2; held."""
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=30)
    (item,) = worker.claim()
    call(runner, worker, item, "call-0", 0)
    commit(runner, worker, item, 1)
    call(runner, worker, item, "call-1", 1)
    commit(runner, worker, item, 2)
    call(runner, worker, item, "call-2", 2)
    return worker, item


def replies(runner: Driver, worker: engine.Worker, item: Any, key: str, ordinal: int) -> ledger.LedgerReply:
    identity = engine.tool_call(key, item_id=item.item_id, ordinal=ordinal)
    return runner.run(
        ledger.ledger_begin(identity, worker.fence(item), worker.worker_id, on_doubt="ask", produces="[]", expires_s=60)
    )


def test_a_completed_task_goes_on_from_the_checkpoint(runner: Driver) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    assert [each.idempotency_key for each in runner.run(rewind.rewind_calls("task-1", 1))] == ["call-1", "call-2"]
    assert runner.run(rewind.rewind_scope("task-1", 1)) == rewind.RewindScope((item.item_id,), (2,))
    assert engine.status(runner) == "completed", "looking changes nothing"
    assert runner.run(rewind.rewind_task("task-1", 1, "{}", "alice")) == (item.item_id,)
    assert engine.place(runner) == "ready"
    (again,) = worker.claim()
    assert again.attempt == item.attempt + 1
    (newest,) = runner.run(checkpoints.checkpoints_before("task-1", item_id=item.item_id))
    assert newest.sequence_number == 1
    second = runner.run(checkpoints.checkpoint_of("task-1", 2))
    assert second is not None
    assert second.superseded_reason == "rewound to checkpoint 1 by alice"
    assert replies(runner, worker, again, "call-1", 1).verdict == "finished"
    assert commit(runner, worker, again, 2) == 3, "numbers are never used twice"
    assert runner.run(tasks.misplaced_items()) == ()


def test_executed_again_is_what_came_after_only_and_under_a_new_key(runner: Driver) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    runner.run(rewind.rewind_task("task-1", 1, RE_EXECUTE, "alice"))
    (again,) = worker.claim()
    assert replies(runner, worker, again, "call-0", 0).verdict == "finished"
    reply = replies(runner, worker, again, "call-1", 1)
    assert (reply.verdict, reply.executions) == ("execute", 2)
    assert reply.idempotency_key != "call-1"
    assert len(reply.idempotency_key or "") == 64


def test_a_stub_is_the_recorded_result(runner: Driver) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    stub = {"bash": {"action": "stub", "result": {"n": 7}, "exit_code": 3}}
    runner.run(rewind.rewind_task("task-1", 0, json.dumps(stub), "alice"))
    (again,) = worker.claim()
    reply = replies(runner, worker, again, "call-0", 0)
    assert (reply.verdict, reply.result, reply.exit_code) == ("finished", {"n": 7}, 3)


def test_nothing_is_rewound_under_a_worker_that_holds_it(runner: Driver) -> None:
    worker, item = ran(runner)
    with pytest.raises(TaskHeld, match="agentos cancel task-1"):
        runner.run(rewind.rewind_task("task-1", 1, "{}", "alice"))
    assert len(runner.run(checkpoints.checkpoints_before("task-1"))) == 2
    worker.complete(item)
    assert engine.status(runner) == "completed"


def test_a_lease_that_is_lost_but_not_taken_back_yet_counts_as_held(runner: Driver, clock: Any) -> None:
    ran(runner)
    clock.advance(60)
    with pytest.raises(TaskHeld, match="is held"):
        runner.run(rewind.rewind_task("task-1", 1, "{}", "alice"))


@pytest.mark.parametrize("to", [7, 2])
def test_only_a_checkpoint_that_counts_can_be_gone_back_to(runner: Driver, to: int) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    runner.run(rewind.rewind_task("task-1", 1, "{}", "alice"))
    with pytest.raises(UnknownCheckpoint, match=r"0 is the beginning|or 0 for the beginning"):
        runner.run(rewind.rewind_task("task-1", to, "{}", "alice"))
    with pytest.raises(UnknownTask):
        runner.run(rewind.rewind_calls("nobody", 0))


def test_items_that_completed_before_stay_and_those_behind_wait_again(runner: Driver) -> None:
    keys = engine.create(runner, "task-1", {"a": [], "b": ["a"], "c": ["b"]})
    worker = engine.register(runner, ttl_s=30)
    (a,) = worker.claim()
    worker.complete(a)
    (b,) = worker.claim()
    commit(runner, worker, b, 1)
    worker.complete(b)
    assert engine.places(runner) == {"a": "completed", "b": "completed", "c": "ready"}
    assert runner.run(rewind.rewind_task("task-1", 1, "{}", "alice")) == (keys["b"], keys["c"])
    assert engine.places(runner) == {"a": "completed", "b": "ready", "c": "waiting"}
    for _ in "bc":
        worker.complete(*worker.claim())
    assert engine.status(runner) == "completed"
    assert runner.run(tasks.misplaced_items()) == ()


def test_a_cancelled_task_goes_on_and_its_items_are_claimed_once(runner: Driver) -> None:
    worker, item = ran(runner)
    runner.run(tasks.cancel_task("task-1"))
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled"))
    runner.run(rewind.rewind_task("task-1", 2, "{}", "alice"))
    runner.run(rewind.rewind_task("task-1", 2, "{}", "alice"))
    assert len(worker.claim(5)) == 1
    assert engine.status(runner) == "running"


def test_while_it_is_rewound_no_item_can_be_claimed(runner: Driver) -> None:
    worker, item = ran(runner)
    runner.run(items.release(worker.worker_id, [(item.item_id, item.token)]))
    session = runner.session()
    session.begin()
    session.run(rewind.rewind_task("task-1", 1, "{}", "alice"))
    assert worker.claim() == ()
    session.commit()
    assert [each.item_id for each in worker.claim()] == [item.item_id]


def test_a_parked_doubt_is_closed_and_its_call_set_aside(runner: Driver) -> None:
    worker, item = ran(runner)
    call(runner, worker, item, "call-3", 2, finish=False)
    engine.crash(runner, worker)
    other = engine.register(runner, ttl_s=30)
    (held,) = other.claim_solo()
    doubt = replies(runner, other, held, "call-3", 2)
    assert doubt.verdict == "doubt"
    assert doubt.call_token
    identity = engine.tool_call("call-3", item_id=item.item_id, ordinal=2)
    runner.run(doubts.ask_doubt(doubt.call_token, identity, other.fence(held), other.worker_id, "?", park=True))
    runner.run(rewind.rewind_task("task-1", 1, RE_EXECUTE, "alice"))
    assert runner.run(doubts.open_doubts("task-1")) == ()
    (again,) = other.claim()
    assert replies(runner, other, again, "call-3", 2).verdict == "execute"
    with pytest.raises(LeaseLost):
        runner.run(
            ledger.ledger_finish(
                "call-3", doubt.call_token, None, worker.worker_id, result="{}", exit_code=None, error=None
            )
        )


def test_the_dead_are_listed_with_what_a_retry_would_find(runner: Driver) -> None:
    worker, item = ran(runner)
    assert runner.run(rewind.dead_tasks()) == ()
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    (dead,) = runner.run(rewind.dead_tasks())
    assert (dead.task_id, dead.reason, dead.items, dead.quarantined) == ("task-1", "it broke", 1, 0)
    assert (dead.checkpoint, dead.replays, dead.in_doubt, dead.questions) == (2, 3, 0, 0)
    runner.run(tasks.retry_task("task-1"))
    assert runner.run(rewind.dead_tasks()) == ()
