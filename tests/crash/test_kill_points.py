"""A worker is killed -9 at every durable point of an item; another one finishes it as if nothing had been."""

import signal

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import SHORT_TTL_S, Pool, Sweeping

from agentos.store.errors import TaskFailed

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
    assert handle.result(60)["done"] == [0, 1, 2]
    assert len(pool.effects("effect")) == 3
    assert not pool.repeated("effect")
    assert len(pool.effects("llm")) == (2 if (point, when) in PAID_TWICE else 1)
    assert pool.counters(handle)[1:] == (0, crashes)
    assert [seq for (seq,) in pool.rows("SELECT sequence_number FROM agentos.checkpoints ORDER BY 1")] == [1, 2, 3]
    assert pool.rows("SELECT 1 FROM agentos.tool_ledger WHERE state <> 'finished'") == []
    until(lambda: pool.rows("SELECT 1 FROM agentos.misplaced_items") == [])


def test_a_call_in_doubt_whose_tool_does_not_say_what_to_do_stops_the_task_and_shows_the_call(
    pool: Pool, sweeping: Sweeping
) -> None:
    handle = pool.submit("careless")
    pool.worker(module="tests.crash.faulty_worker", env={"FAULT": "fragile after 1"}, wait=False).ended()
    pool.worker("--solo", wait=False)
    with pytest.raises(TaskFailed, match=r"fragile\(\{\}\) of task .* was begun .* and never finished"):
        handle.result(60)
    assert len(pool.effects("fragile")) == 1
    assert pool.rows("SELECT tool_name, in_doubt FROM agentos.ledger_history(%s, 10)", handle.task_id) == [
        ("fragile", True)
    ]


def test_processes_for_items_that_must_run_alone_are_there_before_their_leases_are_taken_back(pool: Pool) -> None:
    victim = pool.worker(ttl=SHORT_TTL_S)
    handle = pool.submit("journey", pause_after=0)
    pool.until_effect("paused")
    survivor = pool.worker()
    victim.kill()
    survivor.until_said("started a process for items that must run alone")  # and no coordinator runs
    assert pool.row("SELECT count(*) FROM agentos.lease_held") == (1,)
    pool.log.with_name("go").touch()
    pool.coordinator()
    assert handle.result(60)["done"] == [0, 1, 2]
