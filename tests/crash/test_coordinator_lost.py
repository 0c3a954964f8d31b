"""Coordinators are killed; work goes on, and so does recovery."""

import time

from tests.coordinator.daemon import until
from tests.worker.pool import SHORT_TTL_S, Pool

from agentos.store.calls import tasks


def test_without_any_coordinator_work_goes_on_and_a_later_one_recovers_what_was_lost(pool: Pool) -> None:
    pool.coordinator().kill()
    victim = pool.worker()
    held = pool.submit("journey", steps=2, pause_after=0)
    pool.until_effect("paused")
    pool.worker()
    victim.kill()
    pool.log.with_name("go").touch()
    assert [pool.submit("quick", n=n).result(60) for n in range(5)] == list(range(5))
    assert not pool.db.run(tasks.task_progress(held.task_id)).ended
    pool.coordinator()
    assert held.result(60)["done"] == [0, 1]
    assert pool.counters(held)[1:] == (0, 1)


def test_of_two_coordinators_the_leader_is_killed_and_a_lost_worker_is_recovered_by_the_other(pool: Pool) -> None:
    leader = pool.coordinator()
    leader.until_said("leading")
    second = pool.coordinator()
    victim = pool.worker()
    held = pool.submit("journey", steps=2, pause_after=0)
    pool.until_effect("paused")
    pool.worker()
    leader.kill()
    victim.kill()
    since = time.monotonic()
    pool.log.with_name("go").touch()
    second.until_said("leading")
    assert time.monotonic() - since < SHORT_TTL_S + 10.0  # a busy machine's; a TTL that nobody gave is longer
    assert held.result(60)["done"] == [0, 1]
    assert pool.counters(held)[1:] == (0, 1)
    until(lambda: pool.rows("SELECT count(*) FROM agentos.events WHERE event = 'lease_reclaimed'") == [(1,)])
