"""Who does not hold the lease writes nothing: every write for an item, with every kind of wrong fence."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import cache, checkpoints, items, ledger, tasks, workers
from agentos.store.calls.items import Fence
from agentos.store.errors import LeaseLost, TaskCancelled, UnknownWorkItem, WrongIsolation
from agentos.store.run import Call

WRITTEN = (
    "checkpoints",
    "tool_ledger",
    "llm_cache",
    "outcomes",
    "approvals",
    "item_deps",
    "waiting",
    "scheduled",
    "events",
)

PROMPT = cache.PromptIdentity("prompt-1", "task-1", "plan", "model", "0" * 64, "Plan: tea")


def begin_call(fence: Fence) -> Call[Any]:
    return ledger.ledger_begin(
        engine.tool_call(item_id=fence.item_id), fence, fence.worker_id, on_doubt="fail", produces="[]", expires_s=60
    )


# What raises. `complete` and `release` say what was fenced off instead, and have tests of their own.
WRITES: dict[str, Callable[[Fence], Call[Any]]] = {
    "commit_checkpoint": lambda f: checkpoints.commit_checkpoint(engine.checkpoint(item_id=f.item_id), f),
    "supersede": lambda f: checkpoints.supersede(f, [(1, "gone")]),
    "note_resume": lambda f: checkpoints.note_resume(f, "{}"),
    "ledger_begin": begin_call,
    "ledger_finish": lambda f: ledger.ledger_finish(
        "call-1", engine.other_token(), f, f.worker_id, result="1", exit_code=0, error=None
    ),
    "ledger_resume": lambda f: ledger.ledger_resume(
        "call-1", engine.other_token(), f, f.worker_id, repair=False, expires_s=1
    ),
    "cache_begin": lambda f: cache.cache_begin(PROMPT, f, f.worker_id, 60),
    "cache_finish": lambda f: cache.cache_finish(PROMPT, engine.other_token(), f, f.worker_id, "1"),
    "fail": lambda f: items.fail(f, engine.ERROR),
    "fail for good": lambda f: items.fail(f, engine.ERROR, terminal=True),
    "renew": lambda f: items.renew(f, 60),
    "ask": lambda f: engine.ask(f, "sure?", "{}"),
    "expand": lambda f: items.expand(f, '[{"key":"a","kind":"shell"}]'),
}


def two_held(runner: Driver) -> tuple[engine.Worker, Fence, Fence]:
    engine.submit(runner, "task-1")
    engine.submit(runner, "task-2")
    worker = engine.register(runner)
    mine, other = worker.claim(2)
    return worker, worker.fence(mine), worker.fence(other)


def rows_written(conn: psycopg.Connection[Any]) -> dict[str, int]:
    return {table: engine.count(conn, table) for table in WRITTEN}


@pytest.mark.parametrize("wrong", ["token", "worker", "token of another item", "item"])
def test_a_wrong_fence_writes_nothing(runner: Driver, conn: psycopg.Connection[Any], wrong: str) -> None:
    _, mine, other = two_held(runner)
    fence = {
        "token": engine.stale(mine, token=engine.other_token()),
        "worker": engine.stale(mine, worker_id=engine.register(runner).worker_id),
        "token of another item": engine.stale(mine, token=other.token),
        "item": engine.stale(mine, item_id=987_654),
    }[wrong]
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost) as caught:
            runner.run(write(fence))
        assert caught.value.hint
        assert set(rows_written(conn).values()) == {0}, name
    assert engine.count(conn, "lease_held") == 2


def test_a_lease_that_was_reclaimed_and_taken_by_another_writes_nothing(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.submit(runner)
    dead, alive = engine.register(runner), engine.register(runner)
    (held,) = dead.claim()
    engine.crash(runner, dead)
    (_,) = alive.claim_solo()
    before = rows_written(conn)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            runner.run(write(dead.fence(held)))
        assert rows_written(conn) == before, name


def test_a_lease_whose_own_end_has_passed_writes_nothing_before_anybody_reclaimed_it(
    runner: Driver, conn: psycopg.Connection[Any], clock: Any
) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease", ttl_s=3600)
    held = runner.run(items.claim_one(worker.worker_id, 0, None, 10))
    assert held is not None
    clock.advance(11)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            runner.run(write(worker.fence(held)))
        assert set(rows_written(conn).values()) == {0}, name


def test_complete_and_release_take_pairs_and_not_any_token_of_mine(runner: Driver) -> None:
    worker, mine, other = two_held(runner)
    crossed = [(mine.item_id, other.token), (other.item_id, mine.token)]
    assert runner.run(items.release(worker.worker_id, crossed)) == frozenset()
    done = [(item, token, "1") for item, token in crossed]
    assert runner.run(items.complete(worker.worker_id, done)) == {mine.item_id, other.item_id}
    stranger = engine.register(runner)
    held = [(mine.item_id, mine.token, "1")]
    assert runner.run(items.complete(stranger.worker_id, held)) == {mine.item_id}
    assert runner.run(items.release(stranger.worker_id, [(mine.item_id, mine.token)])) == frozenset()
    assert engine.place(runner) == engine.place(runner, "task-2") == "held"


def test_complete_and_release_of_a_lease_past_its_own_end_do_nothing(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="lease", ttl_s=3600)
    held = runner.run(items.claim_one(worker.worker_id, 0, None, 10))
    assert held is not None
    clock.advance(11)
    assert worker.complete(held) == {held.item_id}
    assert runner.run(items.release(worker.worker_id, [(held.item_id, held.token)])) == frozenset()


BEGINNINGS = ("commit_checkpoint", "ledger_begin", "cache_begin", "ask", "expand")


def test_a_cancelled_task_begins_nothing_more(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    worker, mine, _ = two_held(runner)
    assert runner.run(tasks.cancel_task("task-1")) == "running"
    for name in BEGINNINGS:
        with pytest.raises(TaskCancelled, match="task-1"):
            runner.run(WRITES[name](mine))
    assert rows_written(conn) == {**dict.fromkeys(WRITTEN, 0), "events": 1}
    assert runner.run(workers.beat(worker.worker_id, 0)).cancelled == {mine.item_id}


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_higher_isolation_level_is_refused_because_it_does_not_fence(runner: Driver, level: str) -> None:
    _, mine, _ = two_held(runner)
    session = runner.session()
    for write in WRITES.values():
        session.execute("BEGIN ISOLATION LEVEL " + ("SERIALIZABLE" if level == "SERIALIZABLE" else "REPEATABLE READ"))
        with pytest.raises(WrongIsolation, match=level.lower()) as caught:
            session.run(write(mine))
        assert caught.value.hint
        session.rollback()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_claim_complete_release_and_reclaim_refuse_it_too(runner: Driver, level: str) -> None:
    worker, mine, _ = two_held(runner)
    calls: tuple[Call[Any], ...] = (
        items.claim(worker.worker_id, 0, worker.lanes, 1),
        items.claim_task(worker.worker_id, 0, "task-1", 1),
        items.claim_one(worker.worker_id, 0, None, 60),
        items.complete(worker.worker_id, [(mine.item_id, mine.token, "1")]),
        items.release(worker.worker_id, [(mine.item_id, mine.token)]),
        workers.reclaim(),
    )
    for call in calls:
        session = runner.session()
        session.execute("BEGIN ISOLATION LEVEL " + ("SERIALIZABLE" if level == "SERIALIZABLE" else "REPEATABLE READ"))
        with pytest.raises(WrongIsolation):
            session.run(call)
        session.close()


def test_an_open_transaction_of_the_holder_keeps_its_lease_from_being_reclaimed(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    session = runner.session()
    session.begin()
    session.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item)))
    assert engine.crash(runner, worker) == ()
    (blocked,) = runner.run(workers.blocked_leases())
    assert (blocked.item_id, blocked.worker_id) == (item.item_id, worker.worker_id)
    assert session.pid in (blocked.pid, 0)
    session.commit()
    (taken,) = runner.run(workers.reclaim())
    assert taken.item_id == item.item_id
    assert runner.run(checkpoints.checkpoint_of("task-1", 1)) is not None


def test_a_write_that_waits_while_its_lease_is_reclaimed_is_refused(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(workers.declare_dead([worker.worker_id]))
    coordinator, writer = runner.session(), runner.session()
    coordinator.begin()
    assert len(coordinator.run(workers.reclaim())) == 1
    with ThreadPoolExecutor(1) as threads:
        write = threads.submit(
            writer.run, checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item))
        )
        engine.wait_until_blocked(conn, writer.pid)
        coordinator.commit()
        with pytest.raises(LeaseLost):
            write.result()
    assert engine.count(conn, "checkpoints") == 0


def test_two_writers_under_one_lease_take_turns_and_both_are_kept(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    first, second = runner.session(), runner.session()
    write = checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item))
    again = checkpoints.commit_checkpoint(engine.checkpoint(item_id=item.item_id), worker.fence(item))
    first.begin()
    first.run(write)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(second.run, again)
        engine.wait_until_blocked(conn, second.pid)
        first.commit()
        assert waiting.result().sequence_number == 2


def test_a_fenced_transaction_that_idles_is_ended_by_the_server(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    session = runner.session()
    session.begin()
    session.run(checkpoints.note_resume(worker.fence(item), "{}"))
    limits = session.run(
        Call(
            "SELECT name, setting::integer AS ms FROM pg_settings WHERE name IN"
            " ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')",
            (),
            lambda rows: {row["name"]: row["ms"] for row in rows},
        )
    )
    assert all(0 < ms <= 5000 for ms in limits.values()), limits
    session.rollback()


def test_a_checkpoint_is_refused_for_a_task_that_is_not_the_leases(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    _, mine, other = two_held(runner)
    task_of_mine = next(t for t in ("task-1", "task-2") if mine.item_id in engine.ids(runner, t).values())
    elsewhere = "task-2" if task_of_mine == "task-1" else "task-1"
    with pytest.raises(UnknownWorkItem):
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint(elsewhere, mine.item_id), mine))
    with pytest.raises(LeaseLost):
        runner.run(checkpoints.commit_checkpoint(engine.checkpoint(elsewhere, other.item_id), mine))
    assert engine.count(conn, "checkpoints") == 0
