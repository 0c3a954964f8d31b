"""Eight items write in shared commits, and the process dies, or a reply is lost, in the middle of one."""

import signal

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool, Sweeping

STEPS = 4
ITEMS = 8


def assert_whole(pool: Pool) -> None:
    assert len(pool.effects("effect")) == ITEMS * STEPS
    assert not pool.repeated("effect")
    numbers = pool.rows(
        "SELECT array_agg(sequence_number ORDER BY sequence_number) FROM agentos.checkpoints GROUP BY task_id"
    )
    assert numbers == [(list(range(1, STEPS + 1)),)] * ITEMS
    assert pool.rows("SELECT 1 FROM agentos.tool_ledger WHERE state <> 'finished'") == []


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_the_middle_of_a_shared_commit_every_item_goes_on_from_its_own_step(
    pool: Pool, sweeping: Sweeping, when: str, nth: int
) -> None:
    handles = [pool.submit("stepping", steps=STEPS) for _ in range(ITEMS)]
    victim = pool.worker(
        "--concurrency", "8", module="tests.crash.faulty_worker", env={"FAULT": f"write_batch {when} {nth}"}, wait=False
    )
    assert victim.ended() == -signal.SIGKILL
    pool.worker("--solo", wait=False)
    assert [handle.result(60) for handle in handles] == [STEPS] * ITEMS
    assert_whole(pool)
    until(lambda: pool.rows("SELECT 1 FROM agentos.misplaced_items") == [])


def test_shared_commits_without_a_reply_are_neither_lost_nor_doubled(pool: Pool, sweeping: Sweeping) -> None:
    handles = [pool.submit("stepping", steps=STEPS) for _ in range(ITEMS)]
    lost = ";".join(f"write_batch lost {n}" for n in (1, 2, 4))
    pool.worker("--concurrency", "8", module="tests.crash.faulty_worker", env={"FAULT": lost}, wait=False)
    assert [handle.result(60) for handle in handles] == [STEPS] * ITEMS
    assert [pool.counters(handle) for handle in handles] == [(1, 0, 0)] * ITEMS
    assert_whole(pool)
