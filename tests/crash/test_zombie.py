"""A worker is stopped for longer than its TTL and wakes up: what it still wants to write is refused."""

import json
import signal
import time

from tests.coordinator.daemon import Daemon, until
from tests.worker.pool import TTL_S, Pool, Sweeping

DEEDS = ("checkpoint", "tool", "llm", "complete")


def put_to_sleep(pool: Pool, zombie: Daemon, items: int) -> None:
    """Stop the process until its leases are somebody else's."""
    until(lambda: len(pool.effects("waiting")) == items)
    zombie.signal(signal.SIGSTOP)
    until(lambda: len(pool.rows("SELECT 1 FROM agentos.lease_ready")) == items, what="the leases are reclaimed")


def test_the_database_refuses_every_write_of_a_worker_whose_leases_were_taken(pool: Pool, sweeping: Sweeping) -> None:
    zombie = pool.worker(module="tests.crash.stubborn_worker")
    handles = {deed: pool.submit("sleepwalker", then=deed) for deed in DEEDS}
    put_to_sleep(pool, zombie, len(DEEDS))
    pool.log.with_name("go").touch()
    zombie.signal(signal.SIGCONT)
    until(lambda: len(pool.effects("refused")) == 3)
    zombie.until_said("completion refused")
    assert sorted(pool.effects("refused")) == [f"refused {deed} 1 LeaseLost" for deed in ("checkpoint", "llm", "tool")]
    assert pool.effects("effect") + pool.effects("llm") == []
    assert pool.rows("SELECT 1 FROM agentos.outcomes UNION ALL SELECT 1 FROM agentos.checkpoints") == []
    pool.worker("--solo", wait=False)
    assert [handle.result(20) for handle in handles.values()] == ["by attempt 2"] * 4
    assert [pool.counters(handle) for handle in handles.values()] == [(2, 0, 1)] * 4
    assert (len(pool.effects("effect")), len(pool.effects("llm"))) == (1, 1)


def test_a_worker_that_was_stopped_past_its_ttl_starts_over_under_a_new_id(pool: Pool, sweeping: Sweeping) -> None:
    zombie = pool.worker()
    handle = pool.submit("wait")
    put_to_sleep(pool, zombie, 1)
    zombie.signal(signal.SIGCONT)
    zombie.until_said("starting over under a new worker id")
    pool.until_effect("cancelled")
    ids = until(lambda: [json.loads(line)["worker_id"] for line in list(zombie.lines) if '"serving"' in line][1:])
    assert ids[0] != json.loads(zombie.said('"serving"') or "")["worker_id"]
    pool.log.with_name("go").touch()
    assert pool.submit("quick", n=1).result(20) == 1
    assert handle.result(20) == "told"  # in a process of its own
    assert pool.counters(handle) == (2, 0, 1)
    assert "must run alone" in (zombie.said("must run alone") or "")


def test_a_handler_that_was_stopped_with_its_process_did_not_block_the_loop(pool: Pool) -> None:
    zombie = pool.worker()
    handle = pool.submit("chew")
    pool.until_effect("chewing")
    zombie.signal(signal.SIGSTOP)
    time.sleep(TTL_S * 1.2)  # what is tested is that so long has passed
    zombie.signal(signal.SIGCONT)
    handle.cancel()  # nobody took its lease meanwhile
    assert pool.until_effect("stopped") == "stopped CancelledError"
    assert zombie.said("interrupting the handler") is None
