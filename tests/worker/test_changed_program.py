"""A worker is killed, and one with another program resumes what it did from the last checkpoint."""

import pytest
from tests.coordinator.daemon import Daemon
from tests.worker.pool import Pool, Sweeping

from agentos.core.app import TaskHandle

APP = "tests.worker.changing:app"


def killed(pool: Pool, fault: str) -> None:
    """A worker whose program is a, b and c; the checkpoint after `a` is committed, and it dies behind it."""
    started = worker(pool, "a b c", fault)
    assert started.ended() == -9


def worker(pool: Pool, steps: str, fault: str = "") -> Daemon:
    env = {"STEPS": steps, "FAULT": fault}
    return pool.worker(app=APP, module="tests.crash.faulty_worker", env=env, wait=False)


def asked(pool: Pool, handle: TaskHandle) -> str:
    """The question that the changed program leads to. Nothing was done before it, and its item costs no slot."""
    worker(pool, "a x c").until_said("parked")
    (doubt,) = handle.doubts()
    assert doubt.sort == "program"
    assert pool.rows("SELECT item_id FROM agentos.lease_held") == []
    return doubt.message


def test_by_default_the_changed_program_is_asked_about_and_nothing_is_done(pool: Pool, sweeping: Sweeping) -> None:
    handle = pool.submit("asks")
    killed(pool, "ledger_finish after 2")
    assert asked(pool, handle).splitlines() == [
        f"the program of task {handle.task_id} changed under its record: after 1 checkpoint(s)",
        '- 1. recorded do("b") finished',
        '+ 1. asked    do("x")',
    ]
    assert pool.effects("did") == ["did a", "did b"]
    handle.resolve("continue")
    assert handle.result(60) == ["a", "x", "c"]
    assert pool.effects("did") == ["did a", "did b", "did x", "did c"]
    assert pool.effects("from") == ["from", "from a", "from a"]


def test_declared_to_continue_the_changed_program_goes_on_from_the_checkpoint_at_once(
    pool: Pool, sweeping: Sweeping
) -> None:
    handle = pool.submit("goes_on")
    killed(pool, "ledger_finish after 2")
    worker(pool, "a x b c")
    assert handle.result(60) == ["a", "x", "b", "c"]
    assert pool.effects("did") == ["did a", "did b", "did x", "did c"]  # b is replayed where the new program has it
    assert pool.effects("from") == ["from", "from a"]
    assert not handle.doubts()


@pytest.mark.parametrize("kind", ["asks", "goes_on"])
def test_a_call_in_doubt_is_never_made_again_by_a_program_that_still_makes_it(
    pool: Pool, sweeping: Sweeping, kind: str
) -> None:
    """Whatever is declared about changes: `b` was made and not recorded, and its tool does not say what to do then."""
    handle = pool.submit(kind)
    killed(pool, "b after 1")
    worker(pool, "a b x")
    with pytest.raises(Exception, match="was begun"):
        handle.result(60)
    assert pool.effects("did") == ["did a", "did b"]


def test_by_default_a_call_in_doubt_that_the_changed_program_left_out_is_asked_about(
    pool: Pool, sweeping: Sweeping
) -> None:
    handle = pool.submit("asks")
    killed(pool, "b after 1")
    assert '- 1. recorded do("b") begun' in asked(pool, handle)
    assert pool.effects("did") == ["did a", "did b"]
