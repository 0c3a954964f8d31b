"""A worker is killed -9 around the COMMIT of ctx.transaction(): the user's row and the checkpoint, both or neither."""

import signal

import pytest
from tests.worker.pool import Pool, Sweeping

from agentos.store.connect import connect

POINTS = [("payment", "after"), ("commit", "before"), ("commit", "during"), ("commit", "after")]


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize(("point", "when"), POINTS)
def test_killed_around_the_commit_every_row_is_there_once_with_its_checkpoint(
    pool: Pool, sweeping: Sweeping, point: str, when: str, nth: int
) -> None:
    with connect(pool.dsn) as conn:
        conn.execute("CREATE TABLE payments (step integer)")
    handle = pool.submit("pays")
    victim = pool.worker(module="tests.crash.faulty_worker", env={"FAULT": f"{point} {when} {nth}"}, wait=False)
    assert victim.ended() == -signal.SIGKILL
    rows, checkpoints = pool.row("SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM agentos.checkpoints)")
    assert rows == checkpoints
    assert (
        rows
        in {"after": (nth,), "before": (nth - 1,), "during": (nth - 1, nth)}["before" if point == "payment" else when]
    )
    pool.worker("--solo", wait=False)
    assert handle.result(60) == {"paid": 3}
    assert pool.rows("SELECT step FROM payments ORDER BY step") == [(0,), (1,), (2,)]
    assert pool.row("SELECT count(*), max(sequence_number) FROM agentos.checkpoints") == (3, 3)
