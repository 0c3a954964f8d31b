"""A caller's transaction under a fence: what holds it, how long, and how its end is found out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import checkpoints, workers
from agentos.store.calls.items import Fence
from agentos.store.calls.transactions import hold_fence, is_usable, settled_transaction, transaction_status
from agentos.store.errors import LeaseLost, WrongDatabase
from agentos.testing.clock import Clock


def held(runner: Driver) -> tuple[engine.Worker, Fence]:
    engine.submit(runner, "task-1")
    worker = engine.register(runner)
    (item,) = worker.claim(1)
    return worker, worker.fence(item)


def test_it_is_held_until_its_end_and_limited_to_a_third_of_the_ttl(runner: Driver) -> None:
    _, fence = held(runner)
    session = runner.session()
    session.begin()
    found = session.run(hold_fence(fence, joined=True))
    assert found.limit_s == 5.0
    assert session.run(is_usable())
    assert runner.run(transaction_status(found.xid)) == "in progress"
    assert runner.run(workers.reclaim()) == ()
    session.commit()
    assert runner.run(transaction_status(found.xid)) == "committed"
    assert runner.run(settled_transaction(fence, step_id=None, xid=found.xid))


def test_a_stale_token_holds_nothing(runner: Driver) -> None:
    _, fence = held(runner)
    with pytest.raises(LeaseLost):
        runner.run(hold_fence(engine.stale(fence, token=engine.other_token()), joined=False))


def test_a_worker_that_is_not_known_there_is_another_database(runner: Driver) -> None:
    _, fence = held(runner)
    with pytest.raises(WrongDatabase):
        runner.run(hold_fence(engine.stale(fence, worker_id=4711), joined=True))


def test_a_dead_workers_lease_is_not_taken_back_before_its_transaction_ends(runner: Driver, clock: Clock) -> None:
    _, fence = held(runner)
    session = runner.session()
    session.begin()
    session.run(hold_fence(fence, joined=False))
    clock.advance(60)
    assert runner.run(workers.reclaim()) == ()  # skipped, not waited for
    session.rollback()
    assert [lease.item_id for lease in runner.run(workers.reclaim())] == [fence.item_id]
    session.begin()
    with pytest.raises(LeaseLost):
        session.run(hold_fence(fence, joined=False))


@pytest.mark.parametrize("commits", [True, False])
def test_whether_a_lost_commit_happened_is_told_once_the_transaction_has_ended(
    runner: Driver, conn: psycopg.Connection[Any], commits: bool
) -> None:
    _, fence = held(runner)
    session = runner.session()
    session.begin()
    xid = session.run(hold_fence(fence, joined=False)).xid
    new = engine.checkpoint(item_id=fence.item_id)
    session.run(checkpoints.commit_checkpoint(new, fence))
    asking = runner.session()
    with ThreadPoolExecutor() as pool:
        told = pool.submit(asking.run, settled_transaction(fence, step_id=new.step_id, xid=xid))
        engine.wait_until_blocked(conn, asking.pid)
        (session.commit if commits else session.rollback)()
        assert told.result() is commits
    assert runner.run(settled_transaction(fence, step_id=None, xid=xid)) is commits
    assert runner.run(transaction_status(xid)) == ("committed" if commits else "aborted")
