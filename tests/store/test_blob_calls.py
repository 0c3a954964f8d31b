"""Parts of snapshots: there with the checkpoint that names them, or not at all; collected only when nothing does."""

import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import blobs, checkpoints
from agentos.store.calls.checkpoints import Committed
from agentos.store.errors import PartsMissing
from agentos.store.run import Call
from agentos.testing.clock import Clock

BODIES = {sha256(body).hexdigest(): body for body in (b'"one"', b'"two"')}


def commit(task_id: str = "task-1", names: Any = tuple(BODIES), bodies: Any = None, **more: Any) -> Call[Committed]:
    new = engine.checkpoint(task_id, snapshot='{"$parts":{}}', **more)
    return checkpoints.commit_parted(new, None, None, names, BODIES if bodies is None else bodies)


@pytest.fixture
def task(runner: Driver) -> str:
    engine.submit(runner)
    engine.submit(runner, "task-2")
    engine.submit(runner, "task-3")
    return "task-1"


def test_parts_are_stored_once_and_need_not_be_sent_again(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    assert runner.run(commit()).sequence_number == 1
    assert runner.run(commit(bodies={})).sequence_number == 2
    assert runner.run(commit("task-2")).sequence_number == 1
    assert runner.run(blobs.get_blobs([*BODIES, "0" * 64])) == BODIES
    assert (engine.count(conn, "blobs"), engine.count(conn, "blob_refs")) == (2, 4)
    sizes = {line.what: (line.count, line.bytes) for line in runner.run(blobs.task_bytes("task-1"))}
    assert (sizes["snapshots"], sizes["parts"]) == ((2, 26), (2, 10))


def test_a_checkpoint_that_names_a_part_which_is_not_there_is_not_there_either(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    runner.run(commit("task-2"))
    with pytest.raises(PartsMissing):
        runner.run(commit(bodies={}))  # another task's reference keeps nothing for this one
    assert engine.count(conn, "checkpoints") == 1
    assert runner.run(commit()).sequence_number == 1


def test_a_commit_whose_reply_was_lost_is_there_once(runner: Driver, task: str, conn: psycopg.Connection[Any]) -> None:
    call = commit()
    assert runner.run(call) == runner.run(call)
    assert engine.count(conn, "checkpoints") == 1


def test_what_nothing_refers_to_is_collected_after_a_while(runner: Driver, task: str, clock: Clock) -> None:
    runner.run(commit())
    (name, body), (other, other_body) = BODIES.items()
    runner.run(commit("task-2", [name], {name: body}))
    assert runner.run(blobs.drop_blobs("task-1")) == 2
    assert runner.run(blobs.collect_blobs(60)) == 0
    clock.advance(61)
    assert runner.run(blobs.collect_blobs(60)) == 1
    assert runner.run(blobs.get_blobs([name, other])) == {name: body}
    runner.run(commit("task-2", [other], {other: other_body}))
    assert runner.run(blobs.get_blobs([other])) == {other: other_body}


def test_a_part_that_is_named_again_is_not_collected(runner: Driver, task: str, clock: Clock) -> None:
    runner.run(commit())
    runner.run(blobs.drop_blobs("task-1"))
    clock.advance(61)
    runner.run(commit("task-2"))
    assert runner.run(blobs.collect_blobs(60)) == 0
    assert runner.run(blobs.get_blobs(list(BODIES))) == BODIES


def test_a_writer_that_meets_the_collector_waits_and_stores_the_part_again(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    runner.run(commit())
    runner.run(blobs.drop_blobs("task-1"))
    collector, writer = runner.session(), runner.session()
    collector.begin()
    assert collector.run(blobs.collect_blobs(0)) == 2
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(writer.run, commit("task-2"))
        engine.wait_until_blocked(conn, writer.pid)
        collector.commit()
        assert writing.result().sequence_number == 1
    assert runner.run(blobs.get_blobs(list(BODIES))) == BODIES


def test_writers_that_meet_while_one_part_is_collected_and_the_other_is_new_do_not_wait_for_each_other(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    """The first part goes between a writer's look and its lock, and the second is just being inserted by somebody."""
    first, second = sorted(BODIES)
    for n in range(4):
        runner.run(commit(names=[first], bodies={first: BODIES[first]}))
        runner.run(blobs.drop_blobs("task-1"))
        conn.execute("DELETE FROM agentos.blobs WHERE sha256 = %s", (second,))
        inserting, collector, one, two = (runner.session() for _ in range(4))
        inserting.begin()
        inserting.run(commit("task-3", [second], {second: BODIES[second]}))
        with ThreadPoolExecutor(2) as threads:
            writing = [threads.submit(one.run, commit())]
            engine.wait_until_blocked(conn, one.pid)
            collector.begin()
            collector.run(blobs.collect_blobs(0))
            inserting.rollback()
            writing.append(threads.submit(two.run, commit("task-2")))
            time.sleep(0.1)  # until it waits, if it does
            collector.commit()
            assert [each.result().sequence_number for each in writing] == [2 * n + 2, n + 1]
        assert runner.run(blobs.get_blobs(list(BODIES))) == BODIES
        for each in ("task-1", "task-2"):
            runner.run(blobs.drop_blobs(each))
        runner.run(blobs.collect_blobs(0))


def test_the_collector_leaves_what_a_writer_has_just_named(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    runner.run(commit())
    runner.run(blobs.drop_blobs("task-1"))
    writer = runner.session()
    writer.begin()
    writer.run(commit("task-2"))
    assert runner.run(blobs.collect_blobs(0)) == 0
    writer.commit()
    assert runner.run(blobs.collect_blobs(0)) == 0
    assert engine.count(conn, "blobs") == 2


def test_under_load_nothing_that_is_named_is_ever_collected(
    runner: Driver, task: str, conn: psycopg.Connection[Any]
) -> None:
    """Tasks name and drop the same parts over and over while a collector without any patience runs beside them."""
    for n in range(4):
        engine.submit(runner, f"load-{n}")
    sessions = [runner.session() for _ in range(5)]

    def name_and_drop(n: int) -> None:
        for _ in range(25):
            sessions[n].run(commit(f"load-{n}"))
            assert sessions[n].run(blobs.get_blobs(list(BODIES))) == BODIES
            sessions[n].run(blobs.drop_blobs(f"load-{n}"))
        sessions[n].run(commit(f"load-{n}"))

    with ThreadPoolExecutor(5) as threads:
        working = [threads.submit(name_and_drop, n) for n in range(4)]
        while not all(each.done() for each in working):
            sessions[4].run(blobs.collect_blobs(0))
        for each in working:
            each.result()
    assert runner.run(blobs.get_blobs(list(BODIES))) == BODIES
