"""Postgres is stopped the hard way under load: what was acknowledged is there, and the pool goes on."""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool

from agentos.core.app import App
from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.errors import AgentOSError
from agentos.store.migrate import migrate

STEPS = 5


@pytest.fixture
def server(own_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return own_server({"fsync": "on", "max_connections": "100"})


@pytest.fixture
def pool_on(server: EmbeddedServer, tmp_path: Path) -> Iterator[Pool]:
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    db = Database(dsn)
    made = Pool(dsn, tmp_path / "effects.log", db)
    yield made
    made.close()
    db.close()


class Submitting(threading.Thread):
    """Submits all the time; `acknowledged` are those for which submit returned."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._app = App(dsn=dsn)
        self._done = threading.Event()
        self.acknowledged: list[str] = []
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.01):
            with suppress(AgentOSError):
                self.acknowledged.append(self._app.submit("acknowledged", {"steps": STEPS}).task_id)

    def stop(self) -> None:
        self._done.set()
        self.join()


def stop_immediately(server: EmbeddedServer) -> None:
    """What `pg_ctl -m immediate` does."""
    pid = server.status().pid
    assert pid
    os.kill(pid, signal.SIGQUIT)
    until(lambda: not server.status().running)


def acknowledged_more_than(pool: Pool, count: int) -> bool:
    return len(pool.effects("ack")) > count


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_immediate_restart_under_load_loses_nothing_that_was_acknowledged(
    server: EmbeddedServer, pool_on: Pool
) -> None:
    pool = pool_on
    pool.coordinator()
    workers = [pool.worker() for _ in range(2)]
    submitting = Submitting(pool.dsn)
    for round_ in (1, 2):
        until(functools.partial(acknowledged_more_than, pool, 100 * round_))
        stop_immediately(server)
        server.ensure_running()
    until(functools.partial(acknowledged_more_than, pool, 300))
    submitting.stop()
    handles = [App(dsn=pool.dsn).handle(task_id) for task_id in submitting.acknowledged]
    assert [handle.result(60) for handle in handles] == [list(range(STEPS))] * len(handles)
    there = {f"ack {t} {n}" for t, n in pool.rows("SELECT task_id, sequence_number FROM agentos.checkpoints")}
    assert set(pool.effects("ack")) <= there
    assert not pool.repeated("effect")
    assert len(pool.effects("effect")) == STEPS * len(pool.rows("SELECT 1 FROM agentos.task_records"))
    assert pool.rows("SELECT 1 FROM agentos.misplaced_items") == []
    assert [worker.process.poll() for worker in workers] == [None, None]
    charged = pool.row("SELECT max(attempt), max(failures), max(crashes) FROM agentos.outcomes")
    print(f"{len(handles)} tasks; at most {charged} attempts, failures, crashes")


def test_a_process_for_items_that_must_run_alone_does_not_outlive_its_database(
    pool_on: Pool, server: EmbeddedServer
) -> None:
    alone = pool_on.worker("--solo")  # a worker that was killed -9 leaves such a one behind
    server.stop(force=True)
    alone.until_said("the database is away")
    assert alone.ended(60) == 0
