"""A worker is killed -9 at every durable point of an item; another one finishes it as if nothing had been."""

import signal

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool, Sweeping

POINTS = [
    (point, when, nth)
    for point, nth in (
        ("claim", 1), ("cache_begin", 1), ("generate", 1), ("cache_finish", 1), ("ledger_begin", 2), ("effect", 2),
        ("ledger_finish", 2), ("commit_checkpoint", 1), ("commit_checkpoint", 3), ("complete", 1),
    )
    for when in ("before", "after")
]  # fmt: skip

PAID_TWICE = {("generate", "after"), ("cache_finish", "before")}
"""Between the model's answer and its record nothing can know that it was paid."""
NOT_CHARGED = {("claim", "before"), ("complete", "after")}
"""Nothing was held when the process died."""


@pytest.mark.parametrize(("point", "when", "nth"), POINTS, ids=str)
def test_killed_at_a_durable_point_the_item_completes_elsewhere_with_every_effect_once(
    pool: Pool, sweeping: Sweeping, point: str, when: str, nth: int
) -> None:
    handle = pool.submit("journey")
    victim = pool.worker(module="tests.crash.faulty_worker", env={"FAULT": f"{point} {when} {nth}"}, wait=False)
    assert victim.ended() == -signal.SIGKILL
    crashes = 0 if (point, when) in NOT_CHARGED else 1
    pool.worker(*(["--solo"] if crashes else []), wait=False)
    assert handle.result(20)["done"] == [0, 1, 2]
    assert len(pool.effects("effect")) == 3
    assert not pool.repeated("effect")
    assert len(pool.effects("llm")) == (2 if (point, when) in PAID_TWICE else 1)
    assert pool.counters(handle)[1:] == (0, crashes)
    assert [seq for (seq,) in pool.rows("SELECT sequence_number FROM agentos.checkpoints ORDER BY 1")] == [1, 2, 3]
    assert pool.rows("SELECT 1 FROM agentos.tool_ledger WHERE state <> 'finished'") == []
    until(lambda: pool.rows("SELECT 1 FROM agentos.misplaced_items") == [])
