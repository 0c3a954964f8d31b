"""SIGTERM: nothing is burnt, nothing is lost, and what was handed back runs elsewhere at once."""

import signal
import time

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool, Sweeping

GRACE_S = 60.0
AT_ONCE_S = 15.0
"""A second, and what a busy machine makes of it: long before the grace is over."""


@pytest.mark.parametrize("kind", ["journey", "blocking_journey"])
def test_a_handler_that_reaches_a_checkpoint_is_handed_over_there(pool: Pool, kind: str) -> None:
    """No coordinator runs: nothing needs one. The pause of the step after the signal is never entered."""
    leaving = pool.worker("--label", "leaving", grace=GRACE_S)
    handle = pool.submit(kind, steps=3, pause_after=0)
    pool.until_effect("paused 1 1")
    staying = pool.worker()
    leaving.signal(signal.SIGTERM)
    leaving.until_said('"draining"')
    said = time.monotonic()
    pool.log.with_name("go").touch()
    assert handle.result(60)["done"] == [0, 1, 2]
    assert time.monotonic() - said < AT_ONCE_S
    assert leaving.ended() == 0
    assert pool.counters(handle) == (2, 0, 0)
    assert len(pool.effects("effect")) == 3
    assert pool.row("SELECT w.label LIKE 'worker-%%' FROM agentos.outcomes JOIN agentos.workers w USING (worker_id)")[0]
    assert staying.process.poll() is None


@pytest.mark.parametrize("listen", ["--listen", "--no-listen"])
def test_what_does_not_end_within_the_grace_runs_elsewhere_within_a_second_from_its_last_checkpoint(
    pool: Pool, listen: str
) -> None:
    leaving = pool.worker(listen, grace=0)
    handle = pool.submit("journey", steps=3, pause_after=1)
    pool.until_effect("paused 1 1")
    pool.worker(listen)
    leaving.signal(signal.SIGTERM)
    since = time.monotonic()
    until(lambda: "resumed" in [e for (e,) in pool.rows("SELECT event FROM agentos.events")])
    assert time.monotonic() - since < AT_ONCE_S  # no coordinator runs, and nobody else would take it back
    assert leaving.ended() == 0
    assert handle.result(60)["done"] == [0, 1, 2]
    assert pool.counters(handle) == (2, 0, 0)
    assert len(pool.effects("effect")) == 3
    assert len(pool.effects("llm")) == 1


def test_handlers_that_end_within_the_grace_complete_and_nothing_new_is_claimed(pool: Pool) -> None:
    leaving = pool.worker(grace=20)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    leaving.signal(signal.SIGTERM)
    leaving.until_said('"draining"')
    left = pool.submit("quick", n=1)
    pool.log.with_name("go").touch()
    assert leaving.ended() == 0
    assert handle.result(1) == "told"
    assert pool.counters(left) == (0, 0, 0)
    assert pool.row("SELECT state FROM agentos.workers") == ("stopped",)


def test_a_second_signal_hands_everything_back_now(pool: Pool) -> None:
    leaving = pool.worker(grace=3600)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    leaving.signal(signal.SIGTERM)
    leaving.until_said('"draining"')
    leaving.signal(signal.SIGINT)
    assert leaving.ended() == 0
    assert pool.counters(handle) == (1, 0, 0)
    assert pool.rows("SELECT item_id FROM agentos.lease_ready") == [(1,)]


def test_a_handler_that_does_not_end_does_not_keep_the_process_nor_its_item(pool: Pool) -> None:
    leaving = pool.worker(grace=0)
    handle = pool.submit("deaf")
    pool.until_effect("waiting")
    leaving.signal(signal.SIGTERM)
    assert leaving.ended() == 0
    assert pool.effects("deaf")
    assert pool.counters(handle) == (1, 0, 0)
    assert pool.rows("SELECT item_id FROM agentos.lease_ready") == [(1,)]


def test_an_idle_worker_is_gone_at_once(pool: Pool, sweeping: Sweeping) -> None:
    leaving = pool.worker(grace=GRACE_S)
    leaving.signal(signal.SIGTERM)
    since = time.monotonic()
    assert leaving.ended() == 0
    assert time.monotonic() - since < AT_ONCE_S
