"""An item that kills its process: it takes its neighbours along once, then it dies alone, and three times is enough."""

from tests.coordinator.daemon import until
from tests.worker.pool import Pool, ended

from agentos.store.calls import tasks


def test_a_poison_item_is_quarantined_after_three_crashes_and_its_neighbours_complete(pool: Pool) -> None:
    pool.coordinator()
    victim = pool.worker(concurrency=8)
    neighbours = [pool.submit("journey", steps=2, pause_after=0) for _ in range(5)]
    until(lambda: len(pool.effects("paused")) == 5)
    survivor = pool.worker(concurrency=8)
    poison = pool.submit("poison")
    until(lambda: pool.effects("poison"))
    first = int(pool.effects("poison")[0].split(" ")[1])
    assert first in (victim.process.pid, survivor.process.pid)
    pool.log.with_name("go").touch()
    left = survivor if first == victim.process.pid else victim
    late = [pool.submit("quick", n=n) for n in range(20)]
    assert [handle.result(60) for handle in late] == list(range(20))
    assert [handle.result(60)["done"] for handle in neighbours] == [[0, 1]] * 5
    assert ended(poison) == "failed"
    assert "died 3 times" in (pool.db.run(tasks.task_progress(poison.task_id)).reason or "")
    assert pool.counters(poison) == (3, 0, 3)
    assert left.process.poll() is None  # from the second time on only children die
    pids = [int(line.split(" ")[1]) for line in pool.effects("poison")]
    assert len(set(pids)) == 3
    assert left.process.pid not in pids
    assert {pool.counters(handle)[1:] for handle in neighbours} <= {(0, 0), (0, 1)}
    assert not pool.repeated("effect")
    assert pool.rows("SELECT 1 FROM agentos.workers WHERE role = 'solo'")
