"""Checkpoints: gapless numbers with and without a lease, lost replies, walking back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, items, ledger, tasks, workers
from agentos.store.errors import LeaseLost, TaskHeld, UnknownTask, UnknownWorkItem
from agentos.store.run import Call


def test_a_checkpoint_is_stored_as_it_was_written(runner: Driver) -> None:
    item_id = engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    text = '{"b":[1,12345678901234567890],"a":"\\u2028"}'
    new = engine.checkpoint(item_id=item_id, snapshot=text, ordinal=1, evidence='[{"type":"x"}]')
    committed = runner.run(checkpoints.commit_checkpoint(new, worker.fence(item)))
    row = runner.run(checkpoints.checkpoint_of("task-1", committed.sequence_number))
    assert row is not None
    assert (row.snapshot_text, row.snapshot_sha256, row.evidence) == (text, new.snapshot_sha256, [{"type": "x"}])
    assert (row.item_id, row.ordinal, row.checkpoint_type) == (item_id, 1, "iteration_end")
    assert (row.created_at, row.superseded_reason) == (committed.created_at, None)
    assert runner.run(checkpoints.checkpoint_of("task-1", 99)) is None


def test_numbers_are_gapless_with_eight_writers_without_a_lease(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "a title"))
    sessions = [runner.session() for _ in range(8)]

    def write(session: Any) -> list[int]:
        return [
            session.run(checkpoints.commit_checkpoint(engine.checkpoint(), None)).sequence_number for _ in range(25)
        ]

    with ThreadPoolExecutor(8) as threads:
        numbers = [n for written in threads.map(write, sessions) for n in written]
    assert sorted(numbers) == list(range(1, 201))


def test_numbers_are_gapless_for_a_one_item_task_that_has_no_head_yet(runner: Driver) -> None:
    engine.submit(runner)
    sessions = [runner.session() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        wrote = threads.map(lambda s: s.run(checkpoints.commit_checkpoint(engine.checkpoint(), None)), sessions)
        assert sorted(one.sequence_number for one in wrote) == list(range(1, 9))
    assert engine.status(runner) == "created"


def test_a_write_that_is_rolled_back_leaves_no_gap(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "a title"))
    session = runner.session()
    for keep in (False, True, False, True):
        session.begin()
        session.run(checkpoints.commit_checkpoint(engine.checkpoint(), None))
        session.commit() if keep else session.rollback()
    rows = runner.run(checkpoints.checkpoints_before("task-1"))
    assert [row.sequence_number for row in rows] == [2, 1]


@pytest.mark.parametrize("leased", [True, False])
def test_a_commit_whose_reply_was_lost_is_found_and_is_not_made_twice(runner: Driver, leased: bool) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0]) if leased else None
    first = engine.checkpoint(item_id=fence.item_id if fence else None)
    assert runner.run(checkpoints.committed_step("task-1", first.step_id)) is None
    committed = runner.run(checkpoints.commit_checkpoint(first, fence))
    assert runner.run(checkpoints.committed_step("task-1", first.step_id)) == committed
    assert runner.run(checkpoints.commit_checkpoint(first, fence)) == committed
    other = engine.checkpoint(item_id=first.item_id)
    assert runner.run(checkpoints.commit_checkpoint(other, fence)).sequence_number == 2
    assert runner.run(checkpoints.commit_checkpoint(first, fence)) == committed
    assert len(runner.run(checkpoints.checkpoints_before("task-1"))) == 2


@pytest.mark.parametrize("leased", [True, False])
def test_a_commit_still_in_flight_when_it_is_sent_again_is_made_once(
    runner: Driver, conn: psycopg.Connection[Any], leased: bool
) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0]) if leased else None
    step = checkpoints.commit_checkpoint(engine.checkpoint(item_id=fence.item_id if fence else None), fence)
    in_flight, again = runner.session(), runner.session()
    in_flight.begin()
    committed = in_flight.run(step)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(again.run, step)
        engine.wait_until_blocked(conn, again.pid)
        in_flight.commit()
        assert waiting.result() == committed
    assert engine.count(conn, "checkpoints") == 1


def test_without_a_lease_a_held_task_is_refused_and_an_abandoned_one_is_not(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=15)
    worker.claim()
    with pytest.raises(TaskHeld, match="test-host") as caught:
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint(), None))
    assert "agentos wait task-1" in (caught.value.hint or "")
    clock.advance(16)
    assert runner.run(checkpoints.commit_checkpoint(engine.checkpoint(), None)).sequence_number == 1


def test_an_unknown_task_or_item_is_named_with_the_fix(runner: Driver) -> None:
    engine.submit(runner)
    other = engine.submit(runner, "task-2")
    with pytest.raises(UnknownTask, match="nowhere") as unknown:
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint("nowhere"), None))
    assert "create_task" in (unknown.value.hint or "")
    calls: tuple[Call[Any], ...] = (
        checkpoints.commit_checkpoint(engine.checkpoint("task-1", other), None),
        checkpoints.require_item("task-1", other),
        checkpoints.require_item("task-1", 987_654),
    )
    for call in calls:
        with pytest.raises(UnknownWorkItem) as caught:
            runner.run(call)
        assert "snapshot" in (caught.value.hint or "")
    runner.run(checkpoints.require_item("task-2", other))
    runner.run(checkpoints.require_item("task-2", None))


def test_walking_back_goes_page_by_page_and_passes_by_the_superseded(runner: Driver) -> None:
    item_id = engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    for n in range(5):
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=item_id, ordinal=n + 1), fence))
    runner.run(checkpoints.supersede(fence, [(5, "the file is gone"), (3, "exit 1")]))

    def walk(**options: Any) -> list[int]:
        return [row.sequence_number for row in runner.run(checkpoints.checkpoints_before("task-1", **options))]

    assert walk() == walk(item_id=item_id) == [4, 2, 1]
    assert walk(before=4) == [2, 1]
    assert walk(limit=2) == [4, 2]
    assert walk(item_id=987_654) == []
    superseded = runner.run(checkpoints.checkpoint_of("task-1", 5))
    assert superseded is not None
    assert superseded.superseded_reason == "the file is gone"


def test_only_the_holder_supersedes(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    runner.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=fence.item_id), fence))
    with pytest.raises(LeaseLost):
        runner.run(checkpoints.supersede(engine.stale(fence, token=engine.other_token()), [(1, "no")]))
    assert len(runner.run(checkpoints.checkpoints_before("task-1"))) == 1


def test_what_was_resumed_from_is_in_the_timeline(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    runner.run(checkpoints.note_resume(fence, '{"sequence_number":4}'))
    noted = conn.execute(
        "SELECT item_id, attempt, worker_id, data ->> 'sequence_number' FROM agentos.events"
    ).fetchall()
    assert noted == [(fence.item_id, 1, worker.worker_id, "4")]


def test_the_checkpoints_of_two_items_of_a_task_share_its_numbers(runner: Driver) -> None:
    engine.create(runner, "task-1", {"a": [], "b": []})
    worker = engine.register(runner)
    for item in (*worker.claim(1), *worker.claim(1)):
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item)))
    rows = runner.run(checkpoints.checkpoints_before("task-1"))
    assert [row.sequence_number for row in rows] == [2, 1]


def test_the_recorded_exit_is_that_of_the_command_or_of_the_newest_call_before(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="guest", ttl_s=3600)
    for key, arguments, code in (
        ("1", '"make"', 0),
        ("2", '{"command":"make","cwd":"/"}', 2),
        ("3", '"ls"', 1),
        ("4", '["a"]', 3),
    ):
        call = engine.tool_call(key, arguments=arguments)
        begun = ledger.ledger_begin(call, None, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60)
        token = runner.run(begun).call_token
        assert token is not None
        runner.run(ledger.ledger_finish(key, token, None, worker.worker_id, result="{}", exit_code=code, error=None))
        clock.advance(10)
    recorded = runner.run(checkpoints.recorded_exit("task-1", "make", None))
    assert recorded is not None
    assert (recorded.exit_code, recorded.tool_name) == (2, "bash")
    newest = runner.run(checkpoints.recorded_exit("task-1", None, None))
    assert newest is not None
    assert newest.exit_code == 3
    assert recorded.finished_at is not None
    before = runner.run(checkpoints.recorded_exit("task-1", None, recorded.finished_at - timedelta(seconds=1)))
    assert before is not None
    assert before.exit_code == 0
    assert runner.run(checkpoints.recorded_exit("task-1", "never ran", None)) is None
    assert runner.run(checkpoints.recorded_exit("task-2", None, None)) is None


def test_a_claim_between_a_check_and_a_write_without_a_lease_takes_its_turn(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    """A script writes while a worker claims and checkpoints: the numbers stay gapless, nobody waits for ever."""
    engine.submit(runner)
    worker = engine.register(runner)
    script, under_lease = runner.session(), runner.session()
    script.begin()
    script.run(checkpoints.commit_checkpoint(engine.checkpoint(), None))
    (item,) = worker.claim()
    with ThreadPoolExecutor(1) as threads:
        write = checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item))
        waiting = threads.submit(under_lease.run, write)
        engine.wait_until_blocked(conn, under_lease.pid)
        script.commit()
        assert waiting.result().sequence_number == 2
    runner.run(items.release(worker.worker_id, [(item.item_id, item.token)]))
    runner.run(workers.retire_worker(worker.worker_id, "stopped"))
