"""Questions to people: asked and answered once, bound to the execution that they are about."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import doubts, ledger, tasks, workers
from agentos.store.calls.items import Fence
from agentos.store.errors import AnswerRefused, LeaseLost, TaskCancelled, UnknownTask

DONE: dict[str, Any] = {"result": '{"exit_code":3}', "exit_code": 3, "by": "alice"}
NOT_DONE: dict[str, Any] = {"result": None, "exit_code": None, "by": "alice"}


def held(runner: Driver) -> tuple[engine.Worker, Fence]:
    worker = engine.register(runner, ttl_s=30)
    (item,) = worker.claim() or worker.claim_solo()
    return worker, worker.fence(item)


def in_doubt(runner: Driver, *, keys: tuple[str, ...] = ("call-1",)) -> tuple[engine.Worker, Fence, list[UUID]]:
    """A task whose calls were begun by a worker that is dead; held by another one."""
    engine.submit(runner)
    lost, fence = held(runner)
    tokens = [begin(runner, key, lost, fence).call_token for key in keys]
    runner.run(workers.declare_dead([lost.worker_id]))
    runner.run(workers.reclaim())
    return *held(runner), [token for token in tokens if token]


def begin(runner: Driver, key: str, who: engine.Worker, fence: Fence) -> ledger.LedgerReply:
    call = engine.tool_call(key, item_id=fence.item_id)
    return runner.run(ledger.ledger_begin(call, fence, who.worker_id, on_doubt="ask", produces="[]", expires_s=60))


def ask(
    runner: Driver, doubt: UUID, who: engine.Worker, fence: Fence, *, park: bool = True, key: str = "call-1"
) -> bool:
    call = engine.tool_call(key, item_id=fence.item_id)
    return runner.run(doubts.ask_doubt(doubt, call, fence, who.worker_id, "was it done?", park=park))


def place(runner: Driver) -> str:
    (item,) = runner.run(tasks.task_items("task-1"))
    return item.status or item.place


def test_the_question_and_the_parked_item_are_one_commit(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    assert ask(runner, doubt, worker, fence)
    assert place(runner) == "waiting"
    (asked,) = runner.run(doubts.open_doubts("task-1"))
    assert (asked.doubt_id, asked.parked, asked.tool_name, asked.host) == (doubt, True, "bash", "test-host")
    assert runner.run(doubts.open_doubts()) == (asked,)
    with pytest.raises(LeaseLost):
        ask(runner, doubt, worker, fence)


def test_a_call_that_was_done_is_finished_and_its_item_ready(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence)
    assert runner.run(doubts.resolve_doubt("task-1", doubt, "done", **DONE)) == "ready"
    replay = begin(runner, "call-1", *held(runner))
    assert (replay.verdict, replay.result, replay.exit_code) == ("finished", {"exit_code": 3}, 3)
    with pytest.raises(AnswerRefused, match="answered before: done by alice at"):
        runner.run(doubts.resolve_doubt("task-1", doubt, "not_done", **NOT_DONE))


def test_a_call_that_was_not_done_is_executed_again_under_its_key(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence)
    assert runner.run(doubts.resolve_doubt("task-1", doubt, "not_done", **NOT_DONE)) == "ready"
    again = begin(runner, "call-1", *held(runner))
    assert (again.verdict, again.idempotency_key, again.executions) == ("execute", "call-1", 2)


def test_an_item_is_ready_when_its_last_question_is_answered(runner: Driver) -> None:
    worker, fence, (first, second) = in_doubt(runner, keys=("call-1", "call-2"))
    assert ask(runner, first, worker, fence, park=False)
    assert place(runner) == "held"
    assert ask(runner, second, worker, fence, key="call-2")
    assert runner.run(doubts.resolve_doubt("task-1", first, "done", **DONE)) == "waiting"
    assert place(runner) == "waiting"
    assert runner.run(doubts.resolve_doubt("task-1", second, "not_done", **NOT_DONE)) == "ready"
    assert place(runner) == "ready"


def test_an_item_is_failed_by_a_person_only_while_it_is_parked(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence, park=False)
    with pytest.raises(AnswerRefused, match="is not parked"):
        runner.run(doubts.resolve_doubt("task-1", doubt, "fail", **NOT_DONE))
    ask(runner, doubt, worker, fence)
    assert runner.run(doubts.resolve_doubt("task-1", doubt, "fail", **NOT_DONE)) == "failed"
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.reason) == ("failed", "was it done?; failed by alice")


def test_an_answer_to_a_call_that_ran_again_since_is_refused(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence, park=False)
    resumed = ledger.ledger_resume("call-1", doubt, fence, worker.worker_id, repair=False, expires_s=60)
    assert runner.run(resumed).verdict == "execute"
    assert runner.run(doubts.open_doubts("task-1")) == ()
    with pytest.raises(AnswerRefused, match="was executed again since"):
        runner.run(doubts.resolve_doubt("task-1", doubt, "done", **DONE))
    assert not ask(runner, doubt, worker, fence)
    assert place(runner) == "held"


def test_what_is_not_asked_is_not_answered(runner: Driver) -> None:
    with pytest.raises(UnknownTask):
        runner.run(doubts.resolve_doubt("nobody", uuid4(), "done", **DONE))
    engine.submit(runner)
    with pytest.raises(AnswerRefused, match="task task-1 has no doubt"):
        runner.run(doubts.resolve_doubt("task-1", uuid4(), "done", **DONE))


def test_a_cancelled_task_asks_nothing_and_its_parked_item_ends(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    runner.run(tasks.cancel_task("task-1"))
    with pytest.raises(TaskCancelled):
        ask(runner, doubt, worker, fence)


def test_cancelled_while_it_is_asked_about_the_task_stays_cancelled_whatever_is_answered(runner: Driver) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence)
    assert runner.run(tasks.cancel_task("task-1")) == "cancelled"
    assert runner.run(doubts.resolve_doubt("task-1", doubt, "done", **DONE)) == "noted"
    assert place(runner) == "cancelled"


def test_of_two_who_answer_at_the_same_moment_one_is_refused(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence)
    first, second = runner.session(), runner.session()
    first.begin()
    with ThreadPoolExecutor(1) as threads:
        assert first.run(doubts.resolve_doubt("task-1", doubt, "done", **DONE)) == "ready"
        late = threads.submit(second.run, doubts.resolve_doubt("task-1", doubt, "not_done", **NOT_DONE))
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        with pytest.raises(AnswerRefused, match="answered before"):
            late.result()
    assert begin(runner, "call-1", *held(runner)).verdict == "finished"


def test_of_two_people_who_answer_at_once_one_is_refused(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence)
    assert engine.count(conn, "task_heads") == 1, "made by who asked: there is something to lock"
    one, two = runner.session(), runner.session()
    one.begin()
    assert one.run(doubts.resolve_doubt("task-1", doubt, "not_done", **NOT_DONE)) == "ready"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(two.run, doubts.resolve_doubt("task-1", doubt, "done", **DONE))
        engine.wait_until_blocked(conn, two.pid)
        one.commit()
        with pytest.raises(AnswerRefused, match="answered before: not_done by alice"):
            waiting.result(60)
    assert begin(runner, "call-1", *held(runner)).verdict == "execute"


@pytest.mark.parametrize("first", ["answer", "question"])
def test_an_answer_and_an_attempt_that_asks_again_do_not_miss_each_other(
    runner: Driver, conn: psycopg.Connection[Any], first: str
) -> None:
    """The item failed on the doubt and was retried: it asks, and parks for it, while somebody answers."""
    worker, fence, (doubt,) = in_doubt(runner)
    ask(runner, doubt, worker, fence, park=False)
    identity = engine.tool_call(item_id=fence.item_id)
    asks = doubts.ask_doubt(doubt, identity, fence, worker.worker_id, "was it done?", park=True)
    answers = doubts.resolve_doubt("task-1", doubt, "done", **DONE)
    one, two = runner.session(), runner.session()
    one.begin()
    told = one.run(answers if first == "answer" else asks)
    with ThreadPoolExecutor(1) as threads:
        waiting: Any = threads.submit(two.run, asks if first == "answer" else answers)
        engine.wait_until_blocked(conn, two.pid)
        one.commit()
        other = waiting.result(60)
    if first == "answer":
        assert (told, other, place(runner)) == ("noted", False, "held"), "it is told to look at its record again"
    else:
        assert (told, other, place(runner)) == (True, "ready", "ready")
    assert runner.run(doubts.open_doubts("task-1")) == ()
    assert runner.run(tasks.misplaced_items()) == ()
