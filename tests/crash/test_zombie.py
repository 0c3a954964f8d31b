"""A worker is stopped for longer than its TTL and wakes up: what it still wants to write is refused."""

import json
import signal
import time

from tests.coordinator.daemon import until
from tests.worker.pool import SHORT_TTL_S, Pool, Sweeping

DEEDS = ("checkpoint", "tool", "llm", "complete")


LONG_S = 4.0
"""A TTL that really passes, and that a busy machine does not make pass before."""


def test_the_database_refuses_every_write_of_a_worker_whose_leases_were_taken(pool: Pool, sweeping: Sweeping) -> None:
    zombie = pool.worker(module="tests.crash.stubborn_worker")
    handles = {deed: pool.submit("sleepwalker", then=deed) for deed in DEEDS}
    until(lambda: len(pool.effects("waiting")) == len(DEEDS))
    zombie.signal(signal.SIGSTOP)
    pool.expire(zombie)
    until(lambda: len(pool.rows("SELECT 1 FROM agentos.lease_ready")) == len(DEEDS), what="the leases are reclaimed")
    pool.log.with_name("go").touch()
    zombie.signal(signal.SIGCONT)
    until(lambda: len(pool.effects("refused")) == 3)
    zombie.until_said("completion refused")
    assert sorted(pool.effects("refused")) == [f"refused {deed} 1 LeaseLost" for deed in ("checkpoint", "llm", "tool")]
    assert pool.effects("effect") + pool.effects("llm") == []
    assert pool.rows("SELECT 1 FROM agentos.outcomes UNION ALL SELECT 1 FROM agentos.checkpoints") == []
    pool.worker("--solo", wait=False)
    assert [handle.result(60) for handle in handles.values()] == ["by attempt 2"] * 4
    assert [pool.counters(handle) for handle in handles.values()] == [(2, 0, 1)] * 4
    assert (len(pool.effects("effect")), len(pool.effects("llm"))) == (1, 1)


def test_a_worker_that_was_stopped_past_its_ttl_starts_over_under_a_new_id(pool: Pool, sweeping: Sweeping) -> None:
    zombie = pool.worker(ttl=LONG_S)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    zombie.signal(signal.SIGSTOP)
    until(lambda: pool.rows("SELECT 1 FROM agentos.lease_ready"), what="its lease is reclaimed")
    zombie.signal(signal.SIGCONT)
    zombie.until_said("starting over under a new worker id")
    pool.until_effect("cancelled")
    ids = until(lambda: [json.loads(line)["worker_id"] for line in list(zombie.lines) if '"serving"' in line][1:])
    assert ids[0] != json.loads(zombie.said('"serving"') or "")["worker_id"]
    pool.log.with_name("go").touch()
    assert pool.submit("quick", n=1).result(60) == 1
    assert handle.result(60) == "told"  # in a process of its own
    assert pool.counters(handle) == (2, 0, 1)
    assert "must run alone" in (zombie.said("must run alone") or "")


def test_a_handler_that_was_stopped_with_its_process_did_not_block_the_loop(pool: Pool) -> None:
    zombie = pool.worker(ttl=SHORT_TTL_S)
    handle = pool.submit("chew")
    pool.until_effect("chewing")
    zombie.signal(signal.SIGSTOP)
    time.sleep(SHORT_TTL_S * 1.2)  # what is tested is that so long has passed
    zombie.signal(signal.SIGCONT)
    handle.cancel()  # nobody took its lease meanwhile
    assert pool.until_effect("stopped") == "stopped CancelledError"
    assert zombie.said("interrupting the handler") is None
