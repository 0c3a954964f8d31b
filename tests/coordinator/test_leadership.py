"""Several coordinators: one leads, none is needed, and two at once break nothing."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import psycopg
from tests.coordinator.daemon import SWEEP_S, TTL_S, Daemon, until
from tests.coordinator.pool import submit_many, worker_that_dies

from agentos.coordinator.duties import Reclaim, promote
from agentos.store.calls import tasks
from agentos.store.connect import AsyncDatabase, Database

Conn = psycopg.Connection[Any]
SLACK_S = 10.0  # a loaded machine; what takes longer than its bound by mistake takes a TTL of 15 or 60 s


def leader(conn: Conn) -> tuple[int, int]:
    """Holder and term."""
    row = conn.execute("SELECT holder, term FROM agentos.leaders").fetchone()
    assert row is not None
    return row[0], row[1]


def test_when_the_leader_is_killed_the_other_reclaims_within_the_ttl(
    db: Database, conn: Conn, start: Callable[..., Daemon]
) -> None:
    first = start()
    first.until_said("leading")
    second = start()
    second.until_said("coordinating")
    submit_many(db, 1)
    worker_that_dies(db, ttl_s=0.05, claims=0)
    until(
        lambda: conn.execute("SELECT 1 FROM agentos.workers WHERE state = 'dead'").fetchone(), what="the first sweeps"
    )
    assert not second.said("leading")
    first.kill()
    killed_at = time.monotonic()
    worker_that_dies(db, ttl_s=0.05, claims=1)
    until(lambda: conn.execute("SELECT 1 FROM agentos.lease_ready").fetchone())
    assert time.monotonic() - killed_at < TTL_S + SWEEP_S + SLACK_S
    assert second.said("leading")


def test_a_leader_that_is_told_to_stop_resigns_and_the_other_takes_over_at_once(
    conn: Conn, start: Callable[..., Daemon]
) -> None:
    first = start("--ttl", "60")
    first.until_said("leading")
    second = start("--ttl", "3")
    second.until_said("coordinating")
    first.signal(signal.SIGTERM)
    assert first.ended() == 0
    stopped_at = time.monotonic()
    second.until_said("leading")
    assert time.monotonic() - stopped_at < 3 * 0.2 + SLACK_S
    assert leader(conn)[1] == 2


def test_a_second_signal_ends_it_now(conn: Conn, start: Callable[..., Daemon]) -> None:
    coordinator = start()
    coordinator.until_said("leading")
    with conn.transaction():
        conn.execute("LOCK TABLE agentos.leaders")  # resigning hangs
        coordinator.signal(signal.SIGINT)
        coordinator.until_said("stopping")
        coordinator.signal(signal.SIGINT)
        assert coordinator.ended() == 128 + signal.SIGINT


async def test_two_that_work_at_once_reclaim_and_promote_everything_once(
    db: Database, conn: Conn, adb: AsyncDatabase
) -> None:
    submit_many(db, 60)
    for _ in range(6):
        worker_that_dies(db, ttl_s=0.01, claims=10)
    for n in range(60):
        db.run(tasks.submit(f"task-late-{n}", "work", "a title", "{}", delay_s=0.01))
    until(
        lambda: conn.execute("SELECT bool_and(run_at < clock_timestamp()) FROM agentos.scheduled").fetchone() == (True,)
    )
    await asyncio.gather(Reclaim().sweep(adb), Reclaim().sweep(adb), promote(adb), promote(adb))
    await asyncio.gather(Reclaim().sweep(adb), promote(adb))
    assert conn.execute("SELECT count(*), sum(crashes) FROM agentos.lease_ready").fetchone() == (120, 60)
    once = "SELECT count(*), count(DISTINCT item_id) FROM agentos.events WHERE event = 'lease_reclaimed'"
    assert conn.execute(once).fetchone() == (60, 60)


def test_of_two_processes_one_leads(conn: Conn, start: Callable[..., Daemon]) -> None:
    both = [start(), start()]
    for one in both:
        one.until_said("coordinating")
    until(lambda: any(one.said("leading") for one in both))
    expiry = "SELECT expires_at FROM agentos.leaders"
    before = conn.execute(expiry).fetchone()
    until(lambda: conn.execute(expiry).fetchone() != before, what="the lead is kept")
    assert len([one for one in both if one.said("leading")]) == 1
