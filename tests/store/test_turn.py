"""Held -> outcome and ready -> held in one commit; and who is charged when the worker dies between two of them."""

from collections.abc import Sequence

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import items, workers
from agentos.store.calls.items import Claimed, ClaimedItem
from agentos.store.errors import WorkerDead


def turn(
    worker: engine.Worker, done: Sequence[ClaimedItem] = (), limit: int = 0, *, claim_no: int | None = None,
    begun: Sequence[int] = (), over: Sequence[int] = (),
) -> Claimed:  # fmt: skip
    sent = [(item.item_id, item.token, "1") for item in done]
    call = items.turn(
        worker.worker_id, worker.epoch, sent, worker.lanes, limit, claim_no=claim_no, begun=begun, over=over
    )
    return worker.db.run(call)


def test_a_turn_completes_and_claims(runner: Driver) -> None:
    for n in range(4):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    first = turn(worker, (), 2)
    assert [item.task_id for item in first.items] == ["task-0", "task-1"]
    second = turn(worker, first.items, 8)
    assert ([item.task_id for item in second.items], second.fenced) == (["task-2", "task-3"], frozenset())
    assert [engine.place(runner, f"task-{n}") for n in range(4)] == ["completed", "completed", "held", "held"]


def test_a_turn_refuses_what_is_not_held_and_does_the_rest(runner: Driver) -> None:
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    stale, kept = turn(worker, (), 2).items
    runner.run(items.release(worker.worker_id, [(stale.item_id, stale.token)]))
    turned = turn(worker, [stale, kept], 8)
    assert turned.fenced == {stale.item_id}
    assert {item.task_id for item in turned.items} == {"task-0", "task-2"}
    assert engine.place(runner, "task-1") == "completed"


def test_a_turn_of_a_dead_worker_completes_nothing(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    held = turn(worker, (), 1).items
    runner.run(workers.declare_dead([worker.worker_id]))
    with pytest.raises(WorkerDead):
        turn(worker, held, 1)
    assert engine.place(runner, held[0].task_id) == "held"


@pytest.mark.parametrize("begun", [False, True])
def test_prefetched_items_are_charged_a_crash_once_their_claim_is_begun(runner: Driver, *, begun: bool) -> None:
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    worker = engine.register(runner)
    turn(worker, (), 1)
    assert len(turn(worker, (), 2, claim_no=1).items) == 2
    if begun:
        turn(worker, begun=[1])
        turn(worker, begun=[1])  # said again when the reply was lost
    runner.run(workers.declare_dead([worker.worker_id]))
    charged = {lease.task_id: lease.crashes for lease in runner.run(workers.reclaim())}
    assert charged == {"task-0": 1, "task-1": int(begun), "task-2": int(begun)}
    again = engine.register(runner)
    assert len(again.claim(5)) == (0 if begun else 2)
    assert len(again.claim_solo(5)) == (3 if begun else 1)


def test_the_mark_of_a_claim_is_gone_when_it_is_over(runner: Driver, conn: psycopg.Connection[object]) -> None:
    worker = engine.register(runner)
    turn(worker, begun=[1, 2, 3])
    turn(worker, over=[1, 3])
    assert conn.execute("SELECT claim_no FROM agentos.begun_claims").fetchall() == [(2,)]
    runner.run(workers.retire_worker(worker.worker_id, "stopped"))
    runner.run(workers.forget_workers(-1))
    assert conn.execute("SELECT claim_no FROM agentos.begun_claims").fetchall() == []
