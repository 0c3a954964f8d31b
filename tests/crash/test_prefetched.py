"""Items that a worker holds and has not begun: charged nothing when it dies, not kept by a handler that is stuck."""

import json

from tests.coordinator.daemon import until, until_counted
from tests.worker.pool import Pool, Sweeping

from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.worker.pace import CLAIM_MOST

EAGER = "tests.crash.eager_worker"
HELD = "SELECT item_id, started, claim_no FROM agentos.lease_held"
BEGUN = "SELECT claim_no FROM agentos.begun_claims"
CRASHES = "SELECT item_id, crashes FROM agentos.lease_ready"


def submit(pool: Pool, count: int, **more: int) -> None:
    payloads = [json.dumps({"n": n, **more}) for n in range(count)]
    pool.db.run(tasks.submit_many(new_task_ids(count), "numbered", "a title", payloads))


def began(pool: Pool, pid: int) -> set[int]:
    return {int(line.split(" ")[1]) for line in pool.effects("began") if line.endswith(f" {pid}")}


def waiting_in(pool: Pool, pid: int, slots: int) -> set[int]:
    """Held items that have not begun, but for those in slots and of the last claim."""
    rows = pool.rows(HELD)
    last = max((claim_no for *_, claim_no in rows), default=0)
    later = {item for item, _, claim_no in rows if claim_no < last} - began(pool, pid)
    return set(sorted(later)[slots:])


def test_killed_with_600_items_prefetched_only_those_of_claims_that_had_begun_are_charged_a_crash(pool: Pool) -> None:
    ended, slots, prefetch = 600, 8, 600
    submit(pool, 1400, wait_from=ended)
    victim = pool.worker("--prefetch", str(prefetch), module=EAGER, concurrency=slots)
    until(lambda: len(pool.rows(HELD)) == slots + prefetch and len(began(pool, victim.process.pid)) == ended + slots)
    victim.kill()
    held = {item: (started, claim_no) for item, started, claim_no in pool.rows(HELD)}
    assert len(held) == slots + prefetch
    begun = {claim_no for (claim_no,) in pool.rows(BEGUN)}
    expected = {item for item, (started, claim_no) in held.items() if started or claim_no in begun}
    pool.coordinator()
    until(lambda: pool.rows(HELD) == [])
    crashes = dict(pool.rows(CRASHES))
    assert {item for item in crashes if crashes[item]} == expected
    assert {crashes[item] for item in held} == {0, 1}
    assert began(pool, victim.process.pid) & held.keys() <= expected  # what had begun is charged, without exception
    assert len(expected) <= 2 * CLAIM_MOST
    pool.log.with_name("go").touch()
    pool.worker(concurrency=50, ttl=15, wait=False)
    until_counted(lambda: pool.row("SELECT count(*) FROM agentos.outcomes")[0], 1400)
    assert pool.row("SELECT max(failures) FROM agentos.outcomes") == (0,)


def test_what_waits_behind_a_handler_that_blocks_the_loop_runs_elsewhere_within_seconds(
    pool: Pool, sweeping: Sweeping
) -> None:
    """Long before the handler would be interrupted, which is after the TTL. Nothing is charged. What stays is in a
    slot, or in the reply to a claim that nobody reads.
    """
    count = 400
    submit(pool, count, block_at=150)
    stuck = pool.worker(module=EAGER, concurrency=2, ttl=60)
    pool.until_effect("began 151")
    pool.worker(ttl=60)
    until(
        lambda: not pool.rows("SELECT 1 FROM agentos.lease_ready") and not waiting_in(pool, stuck.process.pid, 2),
        timeout_s=30,
    )
    stuck.until_said("what waits behind it is given back")
    assert 151 in {item for item, *_ in pool.rows(HELD)}  # it blocks the loop still
    pool.log.with_name("go").touch()
    until(lambda: pool.row("SELECT count(*) FROM agentos.outcomes") == (count,))
    assert pool.row("SELECT max(failures), max(crashes), max(attempt) > 1 FROM agentos.outcomes") == (0, 0, True)
    assert not pool.repeated("began")
