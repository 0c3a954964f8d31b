"""The record of tool calls: who may execute, who replays, who waits and what is in doubt."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, ledger, workers
from agentos.store.calls.items import Fence
from agentos.store.calls.ledger import LedgerReply
from agentos.store.errors import LeaseLost, UnknownTask
from agentos.store.run import Call

CALL = engine.tool_call()


def begin(
    who: engine.Worker, fence: Fence | None = None, *, force: bool = False, key: str = "call-1"
) -> Call[LedgerReply]:
    call = engine.tool_call(key, item_id=fence.item_id if fence else None)
    return ledger.ledger_begin(
        call, fence, who.worker_id, on_doubt="probe", produces='[{"p":1}]', expires_s=60, force=force
    )


def finish(
    reply: LedgerReply, who: engine.Worker, fence: Fence | None = None, *, error: str | None = None, result: str = "{}"
) -> Call[bool]:
    assert reply.call_token is not None
    return ledger.ledger_finish(
        "call-1", reply.call_token, fence, who.worker_id, result=None if error else result, exit_code=None, error=error
    )


def resume(
    reply: LedgerReply, who: engine.Worker, fence: Fence | None = None, *, repair: bool = False
) -> Call[LedgerReply]:
    assert reply.call_token is not None
    return ledger.ledger_resume("call-1", reply.call_token, fence, who.worker_id, repair=repair, expires_s=60)


@pytest.fixture
def guest(runner: Driver) -> engine.Worker:
    """A living process without a lease; and the task that the calls belong to."""
    engine.submit(runner)
    return engine.register(runner, role="guest", ttl_s=30)


def held(runner: Driver, *, ttl_s: float = 30) -> tuple[engine.Worker, Fence]:
    worker = engine.register(runner, ttl_s=ttl_s)
    (item,) = worker.claim() or worker.claim_solo()
    return worker, worker.fence(item)


def test_a_call_is_executed_once_and_replayed_after(runner: Driver, guest: engine.Worker) -> None:
    begun = runner.run(begin(guest))
    assert (begun.verdict, begun.executions, begun.idempotency_key) == ("execute", 1, "call-1")
    done = ledger.ledger_finish(
        "call-1", begun.call_token or engine.other_token(), None, guest.worker_id,
        result='{"exit_code":3,"out":"x"}', exit_code=3, error=None,
    )  # fmt: skip
    assert runner.run(done) is True
    for _ in range(2):
        replay = runner.run(begin(guest))
        assert (replay.verdict, replay.result, replay.exit_code) == ("finished", {"exit_code": 3, "out": "x"}, 3)
        assert (replay.produces, replay.on_doubt) == ([{"p": 1}], "probe")
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert (entry.state, entry.executions, entry.replays, entry.repairs, entry.in_doubt) == ("finished", 1, 2, 0, False)
    assert (entry.arguments, entry.result) == ("ls", {"exit_code": 3, "out": "x"})


def test_a_call_that_raised_runs_again(runner: Driver, guest: engine.Worker) -> None:
    first = runner.run(begin(guest))
    runner.run(finish(first, guest, error="ValueError: no"))
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert (entry.state, entry.error) == ("failed", "ValueError: no")
    again = runner.run(begin(guest))
    assert (again.verdict, again.executions, again.error) == ("execute", 2, None)
    assert again.call_token != first.call_token


def test_forcing_begins_again_whatever_is_recorded(runner: Driver, guest: engine.Worker) -> None:
    runner.run(finish(runner.run(begin(guest)), guest, result='"old"'))
    forced = runner.run(begin(guest, force=True))
    assert (forced.verdict, forced.executions, forced.result) == ("execute", 2, None)
    runner.run(finish(forced, guest, result='"new"'))
    assert runner.run(begin(guest)).result == "new"


def test_a_call_that_somebody_alive_executes_is_running_for_all_others(runner: Driver, guest: engine.Worker) -> None:
    runner.run(begin(guest))
    worker, fence = held(runner)
    other = engine.register(runner, role="guest")
    for ask in (begin(guest), begin(other), begin(worker, fence)):
        assert runner.run(ask).verdict == "running"
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert not entry.in_doubt


def test_a_call_under_a_lease_that_is_held_is_running_for_those_without(runner: Driver, guest: engine.Worker) -> None:
    worker, fence = held(runner)
    runner.run(begin(worker, fence))
    assert runner.run(begin(guest)).verdict == "running"
    assert runner.run(begin(worker, fence)).verdict == "running"


@pytest.mark.parametrize("end", ["declared dead", "stopped", "expired"])
def test_a_call_of_a_process_that_is_gone_is_in_doubt(
    runner: Driver, guest: engine.Worker, clock: Any, end: str
) -> None:
    begun = runner.run(begin(guest))
    match end:
        case "declared dead":
            runner.run(workers.declare_dead([guest.worker_id]))
        case "stopped":
            runner.run(workers.retire_worker(guest.worker_id, "stopped"))
        case _:
            clock.advance(31)
    other = engine.register(runner, role="guest")
    asked = runner.run(begin(other))
    assert (asked.verdict, asked.call_token, asked.on_doubt) == ("doubt", begun.call_token, "probe")
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert entry.in_doubt


def test_a_call_under_a_lost_lease_is_in_doubt_although_its_process_lives(runner: Driver, guest: engine.Worker) -> None:
    worker, fence = held(runner)
    begun = runner.run(begin(worker, fence))
    runner.run(items.release(worker.worker_id, [(fence.item_id, fence.token)]))
    again, new_fence = held(runner)
    assert runner.run(begin(again, new_fence)).verdict == "doubt"
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert entry.in_doubt
    with pytest.raises(LeaseLost):
        runner.run(finish(begun, worker, fence))


def test_whoever_resumes_is_told_what_was_recorded_since_its_checkpoint(runner: Driver, guest: engine.Worker) -> None:
    worker, fence = held(runner)
    for key, changes in (
        ("first", {"ordinal": 0, "position": 1}), ("second", {"ordinal": 1, "position": 1}), ("beside", {"ordinal": 1}),
        ("named", {"ordinal": 1, "call_key": "k"}), ("wait", {"ordinal": 1, "tool_name": "@sleep"}),
    ):  # fmt: skip
        call = engine.tool_call(key, item_id=fence.item_id, **changes)
        begun = ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60)
        assert runner.run(begun).verdict == "execute"
    found = runner.run(ledger.ledger_recorded(fence.item_id, 1))
    assert sorted((each.key, each.ordinal, each.position, each.state) for each in found) == [
        ("beside", 1, None, "begun"), ("second", 1, 1, "begun")
    ]  # fmt: skip


def test_a_doubt_is_resolved_for_one_of_those_who_ask(runner: Driver, guest: engine.Worker) -> None:
    runner.run(begin(guest))
    runner.run(workers.declare_dead([guest.worker_id]))
    one, two = engine.register(runner, role="guest"), engine.register(runner, role="guest")
    doubt = runner.run(begin(one))
    assert runner.run(begin(two)).call_token == doubt.call_token
    resumed = runner.run(resume(doubt, one))
    assert (resumed.verdict, resumed.executions) == ("execute", 2)
    assert runner.run(resume(doubt, two)).verdict == "running"
    with pytest.raises(LeaseLost):
        runner.run(finish(doubt, guest))
    assert runner.run(finish(resumed, one)) is True


def test_two_who_resolve_a_doubt_at_the_same_moment_execute_once(
    runner: Driver, guest: engine.Worker, conn: psycopg.Connection[Any]
) -> None:
    runner.run(begin(guest))
    runner.run(workers.declare_dead([guest.worker_id]))
    one, two = engine.register(runner, role="guest"), engine.register(runner, role="guest")
    doubt = runner.run(begin(one))
    first, second = runner.session(), runner.session()
    first.begin()
    assert first.run(resume(doubt, one)).verdict == "execute"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(second.run, resume(doubt, two))
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        assert waiting.result().verdict == "running"


def test_a_call_in_doubt_that_its_process_finished_after_all_is_not_done_again(
    runner: Driver, guest: engine.Worker, clock: Any
) -> None:
    """The process only stalled: while others probe, it comes back and records the result."""
    begun = runner.run(begin(guest))
    clock.advance(31)
    other = engine.register(runner, role="guest")
    doubt = runner.run(begin(other))
    assert doubt.verdict == "doubt"
    assert runner.run(finish(begun, guest, result='"done after all"')) is True
    assert runner.run(resume(doubt, other)).verdict == "running"
    replay = runner.run(begin(other))
    assert (replay.verdict, replay.result) == ("finished", "done after all")


def test_a_doubt_found_to_be_done_is_recorded_by_whoever_found_out(runner: Driver, guest: engine.Worker) -> None:
    runner.run(begin(guest))
    runner.run(workers.declare_dead([guest.worker_id]))
    worker, fence = held(runner)
    doubt = runner.run(begin(worker, fence))
    assert runner.run(finish(doubt, worker, fence, result='"found"')) is True
    assert runner.run(begin(worker, fence)).result == "found"


def test_a_finished_call_whose_product_is_lost_is_repaired_and_counted(runner: Driver, guest: engine.Worker) -> None:
    runner.run(finish(runner.run(begin(guest)), guest, result='"old"'))
    recorded = runner.run(begin(guest))
    repaired = runner.run(resume(recorded, guest, repair=True))
    assert (repaired.verdict, repaired.idempotency_key, repaired.executions) == ("execute", "call-1", 2)
    runner.run(finish(repaired, guest, result='"again"'))
    (entry,) = runner.run(ledger.ledger_history("task-1"))
    assert (entry.executions, entry.repairs, entry.result) == (2, 1, "again")
    assert runner.run(resume(recorded, guest, repair=True)).verdict == "running", "it was repaired since"


def test_finishing_twice_says_that_it_was_recorded(runner: Driver, guest: engine.Worker) -> None:
    begun = runner.run(begin(guest))
    assert [runner.run(finish(begun, guest)) for _ in range(2)] == [True, False]
    assert runner.run(finish(begun, guest, error="late")) is False
    assert runner.run(begin(guest)).verdict == "finished"


def test_a_record_expires_for_callers_without_a_lease_only(runner: Driver, guest: engine.Worker, clock: Any) -> None:
    runner.run(finish(runner.run(begin(guest)), guest))
    clock.advance(61)
    worker, fence = held(runner)
    assert runner.run(begin(worker, fence)).verdict == "finished"
    other = engine.register(runner, role="guest")
    assert runner.run(begin(other)).verdict == "execute"


def test_two_who_begin_at_the_same_moment_execute_once(
    runner: Driver, guest: engine.Worker, conn: psycopg.Connection[Any]
) -> None:
    first, second = runner.session(), runner.session()
    first.begin()
    assert first.run(begin(guest)).verdict == "execute"
    with ThreadPoolExecutor(1) as threads:
        other = engine.register(runner, role="guest")
        waiting = threads.submit(second.run, begin(other))
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        assert waiting.result().verdict == "running"


def test_one_whose_begin_was_rolled_back_leaves_the_call_to_the_next(runner: Driver, guest: engine.Worker) -> None:
    session = runner.session()
    session.begin()
    session.run(begin(guest))
    session.rollback()
    assert runner.run(begin(guest)).verdict == "execute"


def test_a_call_without_a_lease_needs_a_task(runner: Driver, guest: engine.Worker) -> None:
    call = engine.tool_call(task_id="nowhere")
    with pytest.raises(UnknownTask, match="nowhere"):
        runner.run(ledger.ledger_begin(call, None, guest.worker_id, on_doubt="fail", produces="[]", expires_s=60))


def test_history_is_newest_first_and_limited(runner: Driver, guest: engine.Worker, clock: Any) -> None:
    for key in ("first", "second", "third"):
        runner.run(begin(guest, key=key))
        clock.advance(1)
    entries = runner.run(ledger.ledger_history("task-1", 2))
    assert len(entries) == 2
    assert entries[0].begun_at > entries[1].begun_at
    assert runner.run(ledger.ledger_history("task-2")) == ()


def test_an_unkeyed_call_recorded_only_before_the_checkpoint_is_found(runner: Driver, guest: engine.Worker) -> None:
    worker, fence = held(runner)

    def record(key: str, ordinal: int, **changes: Any) -> None:
        call = engine.tool_call(key, item_id=fence.item_id, ordinal=ordinal, **changes)
        runner.run(ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60))

    record("a", 1)
    record("b", 0, arguments='"pwd"')
    record("c", 1, arguments='"keyed"', call_key="k")

    def before(arguments: str, resumed: int) -> int | None:
        return runner.run(ledger.ledger_before(fence.item_id, "bash", arguments, resumed, "new"))

    assert before('"ls"', 2) == 1
    assert before('"ls"', 1) is None
    assert before('"pwd"', 2) == 0
    assert before('"keyed"', 2) is None
    assert before('"never"', 2) is None
    record("d", 2)
    assert before('"ls"', 2) is None, "it was recorded since"
