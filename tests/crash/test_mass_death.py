"""At the default settings: many workers killed at once, every item running elsewhere in time."""

import signal
import time

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool

from agentos.store.run import Call

VICTIMS = 20
SURVIVORS = 3
BOUND_S = 15.0 + 1.0 + 1.5
"""The default TTL, the default sweep, and what is left for a process to be there and to claim."""

BUSY_S = 10.0
"""What the twenty processes that then start may take longer on a busy machine. A second TTL is longer."""

JUST_BEATEN: Call[None] = Call(
    "UPDATE agentos.workers SET expires_at = agentos.clock() + ttl WHERE serves ->> 'concurrency' = '1' RETURNING 1",
    (),
    lambda _: None,
)
"""As if all of them had beaten at the moment they were killed: the latest, and all in one sweep."""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_items_of_twenty_workers_killed_at_once_all_run_again_in_time(pool: Pool) -> None:
    pool.coordinator(ttl=15.0, sweep=1.0)
    handles = [pool.submit("wait") for _ in range(VICTIMS)]
    victims = [pool.worker(concurrency=1, ttl=15.0, wait=False) for _ in range(VICTIMS)]
    until(lambda: len(pool.effects("waiting")) == VICTIMS, timeout_s=90)
    for _ in range(SURVIVORS):
        pool.worker(concurrency=8, ttl=15.0)
    for victim in victims:
        victim.signal(signal.SIGKILL)
    pool.db.run(JUST_BEATEN)
    killed = time.monotonic()
    running: list[float] = []

    def all_run_again() -> bool:
        again = len([line for line in pool.effects("waiting") if line.split(" ")[2] == "2"])
        running.extend([time.monotonic() - killed] * (again - len(running)))
        return again == VICTIMS

    until(all_run_again, timeout_s=60)
    print("seconds from the kill until each item runs again:", [round(seconds, 1) for seconds in running])
    pool.log.with_name("go").touch()
    assert [handle.result(60) for handle in handles] == ["told"] * VICTIMS
    assert {pool.counters(handle) for handle in handles} == {(2, 0, 1)}
    assert running[-1] <= BOUND_S + BUSY_S
