"""Waits and what ends them, at the engine: nothing is lost between a wait and its signal."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.drivers import Driver, Session
from tests.store import engine

from agentos.store.calls import coordinator, items, ledger, tasks, timeline, waits, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.calls.waits import WaitReply
from agentos.store.errors import SeveralQuestions, StaleAnswer, TaskCancelled, TaskFinished, UnknownOption


def wait_call(worker: engine.Worker, item: ClaimedItem, key: str = "w1", **how: Any) -> Any:
    tool = "@signal" if "name" in how else "@sleep"
    return waits.wait(engine.tool_call(key, item.task_id, item.item_id, tool_name=tool), worker.fence(item), **how)


def one_item(runner: Driver) -> tuple[engine.Worker, ClaimedItem]:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=7200)
    return worker, worker.claim()[0]


def recorded(runner: Driver) -> list[tuple[str, Any]]:
    return [(entry.state, entry.result) for entry in runner.run(ledger.ledger_history("task-1"))]


def test_a_sleep_is_parked_slept_and_replayed(runner: Driver, clock: Any) -> None:
    worker, item = one_item(runner)
    assert runner.run(wait_call(worker, item, timeout_s=3600)).verdict == "parked"
    assert (engine.place(runner), engine.status(runner)) == ("waiting", "waiting")
    assert runner.run(coordinator.next_due_s()) == pytest.approx(3600, abs=3)
    assert runner.run(workers.promote()) == ()
    clock.advance(3601)
    assert runner.run(workers.promote()) == ("default",)
    (again,) = worker.claim()
    assert (again.attempt, again.failures, again.crashes) == (2, 0, 0)
    assert runner.run(wait_call(worker, again, timeout_s=3600)) == WaitReply("finished", {"slept": True}, None)
    assert recorded(runner) == [("finished", {"slept": True})]


def test_what_is_over_is_not_parked_and_costs_one_call(runner: Driver) -> None:
    worker, item = one_item(runner)
    assert runner.run(wait_call(worker, item, timeout_s=0.0)).verdict == "finished"
    runner.run(waits.send_signal("task-1", "go", '{"n":1}', uuid4()))
    reply = runner.run(wait_call(worker, item, "w2", name="go"))
    assert (reply.verdict, reply.result["payload"]) == ("finished", {"n": 1})
    assert runner.run(wait_call(worker, item, "w3", timeout_s=0.5, near_s=1)).verdict == "waiting"
    assert engine.place(runner) == "held"


def test_a_signal_is_there_once_however_often_it_is_said_and_ends_one_wait(runner: Driver) -> None:
    worker, item = one_item(runner)
    once = uuid4()
    runner.run(wait_call(worker, item, name="go"))
    assert runner.run(waits.send_signal("task-1", "go", "1", once)) == (item.item_id,)
    assert runner.run(waits.send_signal("task-1", "go", "1", once)) == ()
    (again,) = worker.claim()
    assert runner.run(wait_call(worker, again, name="go")).result["payload"] == 1
    assert runner.run(wait_call(worker, again, "w2", name="go")).verdict == "parked"
    assert runner.run(waits.send_signal("task-1", "come", "1", uuid4())) == ()


def test_the_waits_of_several_branches_stay_and_the_earliest_time_wakes_the_item(runner: Driver, clock: Any) -> None:
    worker, item = one_item(runner)
    assert runner.run(wait_call(worker, item, "long", timeout_s=60, park=False)).verdict == "waiting"
    assert runner.run(wait_call(worker, item, "go", name="go", park=False)).verdict == "waiting"
    assert runner.run(wait_call(worker, item, "short", timeout_s=10)).verdict == "parked"
    assert runner.run(coordinator.next_due_s()) == pytest.approx(10, abs=3)
    clock.advance(11)
    runner.run(workers.promote())
    (again,) = worker.claim()
    assert runner.run(wait_call(worker, again, "short", timeout_s=10)).verdict == "finished"
    assert runner.run(waits.send_signal("task-1", "go", "7", uuid4())) == (), "it runs: its wait finds it when it asks"
    assert runner.run(wait_call(worker, again, "long", timeout_s=60)).verdict == "waiting", "another wait is over"
    assert runner.run(wait_call(worker, again, "go", name="go")).result["payload"] == 7
    reply = runner.run(wait_call(worker, again, "long", timeout_s=60))
    assert (reply.verdict, round(reply.wake_in_s or 0, -1)) == ("parked", 50), "counted from the first time"


@pytest.mark.parametrize("first", ["wait", "signal"])
def test_a_wait_and_a_signal_at_once_find_each_other(runner: Driver, conn: psycopg.Connection[Any], first: str) -> None:
    """Whichever commits second waits for the other's head lock, and reads what it wrote."""
    worker, item = one_item(runner)
    sessions = {name: runner.session() for name in ("wait", "signal")}
    second = "signal" if first == "wait" else "wait"
    calls: dict[str, Any] = {
        "wait": wait_call(worker, item, name="go"), "signal": waits.send_signal("task-1", "go", "5", uuid4()),
    }  # fmt: skip
    sessions[first].begin()
    sessions[first].run(calls[first])
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(sessions[second].run, calls[second])
        engine.wait_until_blocked(conn, sessions[second].pid)
        sessions[first].commit()
        blocked.result(60)
    if first == "wait":
        (item,) = worker.claim()
    assert engine.place(runner) == "held"
    assert runner.run(wait_call(worker, item, name="go")).result["payload"] == 5


def test_a_timeout_and_a_signal_at_once_agree(runner: Driver, conn: psycopg.Connection[Any], clock: Any) -> None:
    worker, item = one_item(runner)
    runner.run(wait_call(worker, item, name="go", timeout_s=60))
    clock.advance(61)
    session: Session = runner.session()
    session.begin()
    session.run(waits.send_signal("task-1", "go", "5", uuid4()))
    assert runner.run(workers.promote()) == (), "the signal is on its way"
    session.commit()
    assert runner.run(workers.promote()) == ()
    (again,) = worker.claim()
    assert runner.run(wait_call(worker, again, name="go")).result["payload"] == 5


def test_the_net_finds_a_parked_wait_beside_its_signal(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, item = one_item(runner)
    runner.run(wait_call(worker, item, name="go"))
    conn.execute(
        "INSERT INTO agentos.signals (signal_id, task_id, name, payload, sent_at)"
        " VALUES (gen_random_uuid(), 'task-1', 'go', '3', now())"
    )
    assert runner.run(waits.repair_waits()) == (item.item_id,)
    assert runner.run(waits.repair_waits()) == ()
    (again,) = worker.claim()
    assert runner.run(wait_call(worker, again, "left", timeout_s=60, park=False)).verdict == "waiting"
    worker.complete(again)
    runner.run(waits.repair_waits())
    assert engine.count(conn, "waits") == 0


def test_a_cancelled_task_waits_for_nothing_and_takes_no_signal(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, item = one_item(runner)
    runner.run(wait_call(worker, item, name="go"))
    assert runner.run(tasks.cancel_task("task-1")) == "cancelled"
    assert engine.count(conn, "waits") == 0
    with pytest.raises(TaskFinished, match="cancelled"):
        runner.run(waits.send_signal("task-1", "go", "5", uuid4()))
    runner.run(tasks.retry_task("task-1"))
    (again,) = worker.claim()
    assert runner.run(wait_call(worker, again, name="go")).verdict == "parked"
    runner.run(waits.send_signal("task-1", "go", "5", uuid4()))
    (again,) = worker.claim()
    runner.run(tasks.cancel_task("task-1"))
    with pytest.raises(TaskCancelled):
        runner.run(wait_call(worker, again, "w2", name="go"))


def spawned(runner: Driver, worker: engine.Worker, item: ClaimedItem, child: str) -> str:
    call = engine.tool_call(f"spawn-{child}", item.task_id, item.item_id, tool_name="@spawn")
    plan = '[{"key":"main","kind":"shell","payload":{}}]'
    made = waits.spawn(call, worker.fence(item), child=child, title=child, queue="default", priority=0, items=plan)
    return runner.run(made)


def gather_call(worker: engine.Worker, item: ClaimedItem, *children: str) -> Any:
    call = engine.tool_call(
        "gather", item.task_id, item.item_id, tool_name="@gather", arguments=json.dumps({"children": children})
    )
    return waits.wait(call, worker.fence(item))


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "give_up", "quarantine", "skip"])
def test_whatever_ends_the_last_child_wakes_its_parent_in_the_same_commit(runner: Driver, end: str) -> None:
    worker, item = one_item(runner)
    assert [spawned(runner, worker, item, name) for name in ("a", "b", "a")] == ["a", "b", "a"]
    assert runner.run(gather_call(worker, item, "b", "a")).verdict == "parked"
    (first, second) = worker.claim(2)
    worker.complete(first, result="1")
    assert engine.place(runner) == "waiting"
    match end:
        case "complete":
            worker.complete(second, result="2")
        case "fail":
            runner.run(items.fail(worker.fence(second), engine.ERROR, terminal=True))
        case "cancel":
            runner.run(tasks.cancel_task("b"))
            runner.run(items.fail(worker.fence(second), engine.ERROR, terminal=True, status="cancelled"))
        case "give_up":
            runner.run(items.release(worker.worker_id, [(second.item_id, second.token)]))
            runner.run(tasks.give_up("b", worker.worker_id, "enough"))
        case "quarantine":
            for _ in range(3):
                engine.crash(runner, worker)
                worker = engine.register(runner, ttl_s=7200)
                worker.claim_solo()
        case "skip":
            runner.run(items.expand(worker.fence(second), '[{"key":"c","kind":"shell","depends_on":["main"]}]'))
            runner.run(items.fail(worker.fence(second), engine.ERROR, terminal=True))
    assert engine.place(runner) == "ready"
    (again,) = worker.claim() or worker.claim_solo()
    told = runner.run(gather_call(worker, again, "b", "a")).result["children"]
    expected = {"complete": "completed", "cancel": "cancelled"}.get(end, "failed")
    assert [(each["task_id"], each["status"]) for each in told] == [("b", expected), ("a", "completed")]
    assert told[1]["result"] == 1


@pytest.mark.parametrize("first", ["gather", "complete"])
def test_a_gather_and_the_end_of_the_last_child_at_once_find_each_other(
    runner: Driver, conn: psycopg.Connection[Any], first: str
) -> None:
    worker, item = one_item(runner)
    spawned(runner, worker, item, "a")
    (child,) = worker.claim()
    one, two = runner.session(), runner.session()
    steps: dict[str, Any] = {
        "gather": gather_call(worker, item, "a"),
        "complete": items.complete(worker.worker_id, [(child.item_id, child.token, "5")]),
    }
    one.begin()
    one.run(steps.pop(first))
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(two.run, next(iter(steps.values())))
        engine.wait_until_blocked(conn, two.pid)
        one.commit()
        blocked.result(60)
    if first == "gather":
        (item,) = worker.claim()
    assert runner.run(gather_call(worker, item, "a")).result["children"][0]["result"] == 5


def test_a_cancelled_parent_makes_no_child_and_a_cancel_reaches_grandchildren(runner: Driver) -> None:
    worker, item = one_item(runner)
    spawned(runner, worker, item, "a")
    (child,) = worker.claim()
    spawned(runner, worker, child, "aa")
    runner.run(tasks.cancel_task("task-1"))
    assert [engine.status(runner, task) for task in ("task-1", "a", "aa")] == ["running", "running", "cancelled"]
    with pytest.raises(TaskCancelled):
        spawned(runner, worker, item, "b")


def test_several_questions_are_answered_by_their_ids(runner: Driver) -> None:
    worker, item = one_item(runner)
    for key, options in (("aa", None), ("ab", ["x", "y"])):
        call = engine.tool_call(key, "task-1", item.item_id, tool_name="@approval")
        ask = waits.ask(call, worker.fence(item), f"{key}?", "{}", "5" * 64, options=options, park=key == "ab")
        runner.run(ask)
    with pytest.raises(SeveralQuestions, match="aa, ab"):
        runner.run(waits.answer("task-1", approved=True, by="ana", question="a"))
    with pytest.raises(StaleAnswer):
        runner.run(waits.answer("task-1", approved=True, by="ana", question="aa", shown_sha256="6" * 64))
    for option in ("z", None):
        with pytest.raises(UnknownOption):
            runner.run(waits.answer("task-1", approved=True, by="ana", question="ab", option=option))
    assert runner.run(waits.answer("task-1", approved=True, by="ana", question="ab", option="y")) == "ab"
    (again,) = worker.claim()
    assert runner.run(waits.answer("task-1", approved=False, by="ben")) == "aa", "its item runs: it finds the answer"
    asked = {each.question_id: each for each in runner.run(timeline.task_approvals("task-1"))}
    assert [(each.approved, each.option, each.open) for each in (asked["aa"], asked["ab"])] == [
        (False, None, False),
        (True, "y", False),
    ]
    call = engine.tool_call("aa", "task-1", again.item_id, tool_name="@approval")
    reply = runner.run(waits.ask(call, worker.fence(again), "aa?", "{}", "5" * 64))
    assert (reply.verdict, reply.result["by"]) == ("finished", "ben")
