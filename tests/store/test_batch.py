"""Writes of many items in one transaction: each says what it would say alone, or is left to be made alone."""

import dataclasses
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, items, ledger, tasks
from agentos.store.calls.batch import write_batch
from agentos.store.calls.items import ClaimedItem
from agentos.store.errors import InvalidValue
from agentos.store.run import Call
from agentos.testing.clock import Clock

UNIQUE = (psycopg.errors.UniqueViolation, asyncpg.UniqueViolationError)
KINDS = ("commit_checkpoint", "ledger_begin", "ledger_finish")


@pytest.fixture
def held(runner: Driver) -> tuple[engine.Worker, tuple[ClaimedItem, ...]]:
    """Eight tasks of one item, all held by one worker."""
    for n in range(8):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    return worker, tuple(sorted(worker.claim(8), key=lambda item: item.item_id))


def commit(worker: engine.Worker, item: ClaimedItem, **changes: Any) -> Call[Any]:
    new = engine.checkpoint(item.task_id, item.item_id, **changes)
    return checkpoints.commit_checkpoint(new, worker.fence(item))


def begin(worker: engine.Worker, item: ClaimedItem, key: str, token: UUID) -> Call[Any]:
    call = engine.tool_call(key, item.task_id, item.item_id)
    return ledger.ledger_begin(
        call, worker.fence(item), worker.worker_id, on_doubt="retry", produces='[{"p": 1}]', expires_s=60,
        call_token=token,
    )  # fmt: skip


def finish(worker: engine.Worker, item: ClaimedItem, key: str, token: UUID) -> Call[Any]:
    return ledger.ledger_finish(
        key, token, worker.fence(item), worker.worker_id, result='{"a": 1}', exit_code=3, error=None
    )


def one_of_each(worker: engine.Worker, item: ClaimedItem, name: str) -> list[list[Call[Any]]]:
    """What an item asks, in the order in which it can: some of each kind."""
    tool = uuid4()
    return [
        [commit(worker, item, ordinal=1), begin(worker, item, f"tool-{name}", tool)],
        [finish(worker, item, f"tool-{name}", tool)],
    ]


def written(runner: Driver, calls: Sequence[Call[Any]]) -> list[Any]:
    """What the callers are told; None: not plain."""
    rows = runner.run(write_batch(calls))
    return [row and call.together and call.together.plain(row) for call, row in zip(calls, rows, strict=True)]


def told(replies: Sequence[Any]) -> list[Any]:
    """Replies without what is different at every call."""
    mine = {"created_at", "begun_at", "call_token", "idempotency_key"}
    return [
        {k: v for k, v in _fields(reply).items() if k not in mine} if reply is not True else reply for reply in replies
    ]


def _fields(reply: Any) -> dict[str, Any]:
    return dataclasses.asdict(reply) if dataclasses.is_dataclass(reply) else reply._asdict()  # type: ignore[arg-type]


STORED = """
    SELECT to_jsonb(c) - ARRAY['task_id', 'item_id', 'step_id', 'created_at']
      FROM agentos.checkpoints c WHERE task_id = %(t)s
    UNION ALL
    SELECT to_jsonb(l) - ARRAY['task_id', 'item_id', 'ledger_key', 'idempotency_key', 'token', 'call_token', 'begun_at',
           'finished_at', 'expires_at']
           || jsonb_build_object('seconds', round(extract(epoch FROM l.expires_at - l.begun_at)))
      FROM agentos.tool_ledger l WHERE task_id = %(t)s AND finished_at >= begun_at
"""


def test_together_they_say_and_store_what_they_say_and_store_alone(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], conn: psycopg.Connection[Any]
) -> None:
    worker, (alone, together, *_) = held
    for ones, others in zip(one_of_each(worker, alone, "a"), one_of_each(worker, together, "b"), strict=True):
        assert told(written(runner, others)) == told([runner.run(call) for call in ones])
    stored = [conn.execute(STORED, {"t": item.task_id}).fetchall() for item in (alone, together)]
    assert stored[0] == stored[1]
    assert len(stored[0]) == 2


HOSTILE = ('a"b', "c\\\\d\\", "NULL", "{x,y}", "", " pad ", "\u00e9\u540d\n\t", '"', "','", "null", "a\u2028\U0001f600")


def test_whatever_texts_hold_is_stored_as_it_is(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], conn: psycopg.Connection[Any]
) -> None:
    worker, (item, other, *_) = held
    for text in HOSTILE:
        asked = uuid4(), uuid4()
        calls = [
            commit(worker, item, host=text, workspace=text, snapshot="[1]", step_id=asked[0]),
            commit(worker, other, host="plain", workspace=text, snapshot="[2]"),
            ledger.ledger_begin(
                engine.tool_call(f"key-{text}", item.task_id, item.item_id, tool_name=text, call_key=text, nth=None),
                worker.fence(item), worker.worker_id, on_doubt="ask", produces="[]", expires_s=0.5, call_token=asked[1],
            ),
            begin(worker, other, f"plain-{text}", uuid4()),
        ]  # fmt: skip
        assert all(written(runner, calls))
        end = ledger.ledger_finish(
            f"key-{text}", asked[1], worker.fence(item), worker.worker_id, result=None, exit_code=None, error=text
        )
        assert written(runner, [end, commit(worker, other)])[0] is True
        stored = conn.execute(
            "SELECT host, workspace, tool_name, call_key, ledger_key, nth, error, state"
            " FROM agentos.checkpoints, agentos.tool_ledger WHERE step_id = %s AND call_token = %s", asked,
        ).fetchone()  # fmt: skip
        assert stored == (text, text, text, text, f"key-{text}", None, text, "failed")


def test_only_what_can_go_together_says_so(held: tuple[engine.Worker, tuple[ClaimedItem, ...]]) -> None:
    worker, (item, other, *_) = held
    calls = [call for turn in one_of_each(worker, item, "a") for call in turn]
    assert sorted(call.together.function for call in calls if call.together) == sorted(KINDS)
    for call in (
        checkpoints.commit_checkpoint(engine.checkpoint(item.task_id, item.item_id), None),
        checkpoints.commit_checkpoint(engine.checkpoint(item.task_id, other.item_id), worker.fence(item)),
        ledger.ledger_finish("k", uuid4(), None, 1, result=None, exit_code=None, error=None),
    ):
        assert call.together is None


def test_one_that_is_fenced_off_is_left_out_and_its_neighbours_are_written(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, held_items = held
    runner.run(items.release(worker.worker_id, [(held_items[3].item_id, held_items[3].token)]))
    calls = [commit(worker, item) for item in held_items]
    replies = written(runner, calls)
    assert [reply and reply.sequence_number for reply in replies] == [1, 1, 1, None, 1, 1, 1, 1]
    assert runner.run(checkpoints.checkpoint_of("task-3", 1)) is None


@pytest.mark.parametrize("lost", [None, 2])
def test_calls_of_all_sorts_in_any_order_are_each_told_their_own(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], conn: psycopg.Connection[Any], lost: int | None
) -> None:
    worker, held_items = held
    tools = [(item, uuid4()) for item in held_items]
    written(runner, [begin(worker, item, f"first-{item.item_id}", tool) for item, tool in tools])
    if lost is not None:
        runner.run(items.release(worker.worker_id, [(held_items[lost].item_id, held_items[lost].token)]))
    calls = [
        (n, call)
        for n, (item, tool) in enumerate(tools)
        for call in (
            finish(worker, item, f"first-{item.item_id}", tool), commit(worker, item, ordinal=n),
            begin(worker, item, f"then-{item.item_id}", UUID(int=n)), commit(worker, item, ordinal=100 + n),
        )
    ]  # fmt: skip
    random.shuffle(calls)
    replies = written(runner, [call for _, call in calls])
    for (n, call), reply in zip(calls, replies, strict=True):
        assert (reply is None) == (n == lost)
        if reply and call.together and call.together.function == "ledger_begin":
            assert reply.call_token == UUID(int=n)
        if reply and call.together and call.together.function == "commit_checkpoint":
            row = runner.run(checkpoints.checkpoint_of(call.args[0], reply.sequence_number))
            assert row is not None
            assert (row.item_id, row.ordinal) == (call.args[1], call.args[8])
    finished = conn.execute("SELECT item_id FROM agentos.tool_ledger WHERE state = 'finished' ORDER BY 1").fetchall()
    assert finished == [(item.item_id,) for n, item in enumerate(held_items) if n != lost]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["worker", "token"])
def test_a_fence_is_the_item_the_worker_and_the_token(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], wrong: str, kind: str
) -> None:
    worker, (item, other, *_) = held
    tool = uuid4()
    runner.run(begin(worker, item, "tool-a", tool))
    impostor = dataclasses.replace(worker, worker_id=worker.worker_id + 1) if wrong == "worker" else worker
    claimed = item._replace(token=other.token) if wrong == "token" else item
    call = {
        "commit_checkpoint": commit(impostor, claimed),
        "ledger_begin": begin(impostor, claimed, "tool-b", uuid4()),
        "ledger_finish": finish(impostor, claimed, "tool-a", tool),
    }[kind]
    assert written(runner, [call, commit(worker, other)])[0] is None


def test_a_lease_that_has_ended_by_itself_fences_nothing(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], clock: Clock
) -> None:
    worker, (neighbour, *_) = held
    engine.submit(runner, "task-leased")
    leased = runner.run(items.claim_one(worker.worker_id, worker.epoch, None, 60))
    assert leased is not None
    assert written(runner, [commit(worker, leased), commit(worker, neighbour)])[0] is not None
    clock.advance(61)
    replies = written(runner, [commit(worker, leased), commit(worker, neighbour)])
    assert [reply and reply.sequence_number for reply in replies] == [None, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_lease_of_an_item_is_not_covered_by_the_present_one_in_the_same_batch(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], kind: str, conn: psycopg.Connection[Any]
) -> None:
    """A handler that was told to end and went on, and the attempt after it, both in one process."""
    worker, (old, *_) = held
    tool = uuid4()
    runner.run(begin(worker, old, "tool-a", tool))
    runner.run(items.release(worker.worker_id, [(old.item_id, old.token)]))
    (new,) = worker.claim()
    assert new.item_id == old.item_id
    stale = {
        "commit_checkpoint": commit(worker, old, snapshot='"stale"'),
        "ledger_begin": begin(worker, old, "tool-b", uuid4()),
        "ledger_finish": finish(worker, old, "tool-a", tool),
    }[kind]
    assert written(runner, [stale, commit(worker, new)])[0] is None
    assert written(runner, [commit(worker, new), begin(worker, new, "tool-c", uuid4()), stale])[2] is None
    assert not conn.execute("SELECT 1 FROM agentos.checkpoints WHERE snapshot::text = '\"stale\"'").fetchall()
    assert conn.execute("SELECT ledger_key, state FROM agentos.tool_ledger ORDER BY 1").fetchall() == [
        ("tool-a", "begun"), ("tool-c", "begun"),
    ]  # fmt: skip


def test_an_items_lease_does_not_fence_another_task(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, (item, other, *_) = held
    new = engine.checkpoint(other.task_id, item.item_id)
    call = checkpoints.commit_checkpoint(new, worker.fence(item))
    assert written(runner, [call, commit(worker, other)])[0] is None
    assert runner.run(checkpoints.checkpoint_of(other.task_id, 2)) is None


def test_a_cancelled_task_begins_nothing_and_may_say_what_it_did(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, (item, *_) = held
    first, second = one_of_each(worker, item, "a")
    written(runner, first)
    runner.run(tasks.cancel_task(item.task_id))
    assert written(runner, one_of_each(worker, item, "b")[0]) == [None, None]
    assert written(runner, second) == [True]


def test_what_is_recorded_already_is_left_to_the_call_itself(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, (item, *_) = held
    first, second = one_of_each(worker, item, "a")
    written(runner, [*first, *second])
    again = [begin(worker, item, "tool-a", uuid4()), second[0]]
    assert written(runner, again) == [None, None]
    assert runner.run(again[0]).verdict == "finished"
    assert runner.run(again[1]) is False


def test_steps_of_one_task_are_numbered_without_a_gap(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, (item, other, *_) = held
    calls = [commit(worker, item) for _ in range(5)] + [commit(worker, other)]
    assert [reply.sequence_number for reply in written(runner, calls)] == [1, 2, 3, 4, 5, 1]
    assert [reply.sequence_number for reply in written(runner, [commit(worker, item), commit(worker, item)])] == [6, 7]


@pytest.mark.parametrize("bad", ["{", "\0", "step"])
def test_one_that_the_database_refuses_leaves_nothing_of_the_batch(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]], bad: str
) -> None:
    worker, (item, other, *_) = held
    step = uuid4()
    if bad == "step":
        runner.run(commit(worker, item, step_id=step))
        refused = commit(worker, item, step_id=step)
    else:
        refused = commit(worker, item, snapshot=bad)
    calls = [commit(worker, other), refused]
    with pytest.raises(UNIQUE if bad == "step" else InvalidValue):
        written(runner, calls)
    assert runner.run(checkpoints.checkpoints_before(other.task_id)) == ()


def test_batches_of_the_same_items_in_any_order_do_not_deadlock(
    runner: Driver, held: tuple[engine.Worker, tuple[ClaimedItem, ...]]
) -> None:
    worker, held_items = held
    sessions = [runner.session() for _ in range(4)]

    def write(session: Any) -> None:
        for _ in range(15):
            calls = [commit(worker, item) for item in random.sample(held_items, 6)]
            assert all(session.run(write_batch(calls)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, sessions))
    last = [runner.run(checkpoints.checkpoints_before(item.task_id, limit=1))[0] for item in held_items]
    assert sum(row.sequence_number for row in last) == 4 * 15 * 6
