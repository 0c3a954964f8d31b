"""The primary is killed and its asynchronous standby takes over: the pool goes on there, and the fence holds."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.coordinator.daemon import until
from tests.drivers import LoopThread
from tests.standby import Pair, standby_pair
from tests.store import engine
from tests.worker.pool import Pool

from agentos.core.app import App
from agentos.store.calls import checkpoints, tasks
from agentos.store.connect import AsyncDatabase, Database, connect
from agentos.store.errors import AgentOSError, EngineError, LeaseLost
from agentos.store.migrate import migrate

STEPS = 5
TTL_S = 3.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two servers with the schema, the standby up to date."""
    with standby_pair() as made:
        with connect(made.dsn) as conn:
            migrate(conn)
        made.until_replayed()
        yield made


def test_a_lease_that_the_standby_never_heard_of_writes_nothing_there(pair: Pair, loop_thread: LoopThread) -> None:
    """Tokens are random: the item is claimed again under another one, and whoever holds the lost one is refused."""
    db, adb = Database(pair.dsn), loop_thread.wait(AsyncDatabase.open(pair.dsn))
    engine.submit(db)
    worker = engine.register(db)
    pair.until_replayed()
    pair.fall_behind()
    (lost,) = worker.claim()
    db.run(tasks.submit("acknowledged-and-lost", "shell", "t", "{}"))
    pair.primary.kill()
    pair.standby.promote()
    until(lambda: answers(db))
    again = engine.register(db)
    (found,) = again.claim(5)
    assert (found.item_id, found.token == lost.token, found.attempt) == (lost.item_id, False, 1)
    with pytest.raises(LeaseLost):
        db.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=lost.item_id), worker.fence(lost)))
    until(lambda: loop_thread.wait(quietly(adb)))
    with pytest.raises(LeaseLost):
        loop_thread.wait(
            adb.run(checkpoints.commit_checkpoint(engine.checkpoint(item_id=lost.item_id), worker.fence(lost)))
        )
    assert worker.complete(lost) == {lost.item_id}
    assert again.complete(found) == frozenset()
    assert engine.status(db) == "completed"
    assert (
        db.run(tasks.get_task("acknowledged-and-lost")) is None
    )  # as asynchronous replication has it: the docs say so
    loop_thread.wait(adb.close())
    db.close()


def answers(db: Database) -> bool:
    try:
        db.run(tasks.get_task("task-1"))
    except EngineError:
        raise
    except AgentOSError:
        return False
    return True


async def quietly(adb: AsyncDatabase) -> bool:
    try:
        await adb.run(tasks.get_task("task-1"))
    except AgentOSError:
        return False
    return True


class Submitting(threading.Thread):
    """Submits all the time; `acknowledged` are those for which submit returned, with when."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._app = App(dsn=dsn)
        self._done = threading.Event()
        self.acknowledged: list[str] = []
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.05):
            with suppress(AgentOSError):
                self.acknowledged.append(self._app.submit("acknowledged", {"steps": STEPS}).task_id)

    def stop(self) -> None:
        self._done.set()
        self.join()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_failover_under_load_is_a_pause_and_no_worker_process_ends(pair: Pair, tmp_path: Path) -> None:
    db = Database(pair.dsn)
    pool = Pool(pair.dsn, tmp_path / "effects.log", db)
    try:
        pool.coordinator(ttl=TTL_S)
        workers = [pool.worker(ttl=TTL_S) for _ in range(2)]
        submitting = Submitting(pair.dsn)
        until(lambda: len(pool.effects("ack")) > 50)
        pair.primary.kill()
        killed = time.monotonic()
        pair.standby.promote()
        promoted = time.monotonic()
        with connect(pair.standby.dsn) as conn:
            since = conn.execute("SELECT clock_timestamp()").fetchone()
            claimed = "SELECT EXISTS (SELECT FROM agentos.outcomes WHERE claimed_at > %s)"
            until(lambda: conn.execute(claimed, since).fetchone() == (True,), timeout_s=60)
        gap_s = time.monotonic() - killed
        acknowledged = len(pool.effects("ack"))
        until(lambda: len(pool.effects("ack")) > acknowledged + 50, timeout_s=60)
        submitting.stop()
        there = {task_id for (task_id,) in pool.rows("SELECT task_id FROM agentos.task_records")}
        kept = [task_id for task_id in submitting.acknowledged if task_id in there]
        handles = [App(dsn=pair.dsn).handle(task_id) for task_id in kept]
        assert [handle.result(60) for handle in handles] == [list(range(STEPS))] * len(kept)
        assert pool.rows("SELECT 1 FROM agentos.misplaced_items") == []
        assert [worker.process.poll() for worker in workers] == [None, None]
        lost = len(submitting.acknowledged) - len(kept)
        told = f"kill to promoted {promoted - killed:.1f} s, kill to the first item claimed and completed {gap_s:.1f} s"
        print(
            f"{told}; {len(kept)} tasks kept, {lost} submits and {len(pool.repeated('effect'))} records of effects lost"
        )
        assert gap_s < promoted - killed + 3 * TTL_S + 10
    finally:
        pool.close()
        db.close()
