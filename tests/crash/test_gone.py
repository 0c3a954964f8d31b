"""The database sees the sessions of a worker end: its items run again long before its TTL does."""

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.coordinator.daemon import until
from tests.worker.pool import Pool

from agentos.coordinator.duties import duties
from agentos.core.presence import Presence
from agentos.store.connect import Database
from agentos.store.settings import load_settings

LONG_S = 90.0
"""A TTL that no test here lives to see the end of."""
DEEDS = ("checkpoint", "tool", "llm", "complete")
MINE = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'lonely'"


@pytest.fixture
def lonely(pool: Pool) -> Iterator[str]:
    """A DSN whose role can be locked out of the database, alone."""
    parts = urlsplit(pool.dsn)
    with pool.db.connection() as conn:
        conn.execute("CREATE ROLE lonely LOGIN SUPERUSER PASSWORD 'x'")
    yield urlunsplit(parts._replace(netloc=f"lonely:x@{parts.netloc.rpartition('@')[2]}"))
    pool.close()
    with pool.db.connection() as conn:
        conn.execute("DROP ROLE lonely")


def test_the_items_of_a_killed_worker_run_again_long_before_its_ttl(pool: Pool) -> None:
    pool.coordinator(ttl=LONG_S).until_said("leading")
    victim = pool.worker(ttl=LONG_S)
    handles = [pool.submit("journey", steps=2, pause_after=0) for _ in range(2)]
    until(lambda: len(pool.effects("paused")) == 2)
    pool.worker("--solo", ttl=LONG_S)
    victim.kill()
    pool.log.with_name("go").touch()
    assert [handle.result(LONG_S / 3)["done"] for handle in handles] == [[0, 1]] * 2
    assert [pool.counters(handle) for handle in handles] == [(2, 0, 1)] * 2
    assert pool.repeated("effect") == []


def test_one_that_lives_and_lost_all_its_sessions_is_refused_every_write(pool: Pool, lonely: str) -> None:
    """Its login is refused until its leases are others'. It believes in them, whatever its beat says."""
    pool.coordinator(ttl=LONG_S).until_said("leading")
    alone = pool.worker("--dsn", lonely, ttl=LONG_S, module="tests.crash.stubborn_worker")
    handles = {deed: pool.submit("sleepwalker", then=deed) for deed in DEEDS}
    until(lambda: len(pool.effects("waiting")) == len(DEEDS))
    until(lambda: pool.row("SELECT count(*) FROM agentos.workers WHERE sessions IS NOT NULL") == (1,))
    with pool.db.connection() as conn:
        conn.execute("ALTER ROLE lonely NOLOGIN")
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lonely'")
    until(lambda: len(pool.rows("SELECT 1 FROM agentos.lease_ready")) == len(DEEDS), timeout_s=LONG_S / 3)
    with pool.db.connection() as conn:
        conn.execute("ALTER ROLE lonely LOGIN")
    until(lambda: pool.row(MINE) > (0,))
    pool.log.with_name("go").touch()
    until(lambda: len(pool.effects("refused")) == 3)
    alone.until_said("completion refused")
    assert sorted(pool.effects("refused")) == [f"refused {deed} 1 LeaseLost" for deed in ("checkpoint", "llm", "tool")]
    assert pool.rows("SELECT 1 FROM agentos.outcomes UNION ALL SELECT 1 FROM agentos.checkpoints") == []
    pool.worker("--solo", ttl=LONG_S, wait=False)
    assert [handle.result(60) for handle in handles.values()] == ["by attempt 2"] * 4
    assert [pool.counters(handle) for handle in handles.values()] == [(2, 0, 1)] * 4
    assert (len(pool.effects("effect")), len(pool.effects("llm"))) == (1, 1)


def test_one_that_lost_all_its_sessions_and_comes_back_at_once_keeps_its_items(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_GONE_S", "8")  # "at once" on a busy machine; its next beat would be too late
    coordinator = pool.coordinator(ttl=LONG_S)
    coordinator.until_said("leading")
    worker = pool.worker("--beat", "20", ttl=LONG_S)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    before = until(lambda: pool.row("SELECT beat_at FROM agentos.workers WHERE sessions IS NOT NULL"))
    with pool.db.connection() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN agentos.workers w"
            " ON agentos.process_of(a.application_name) = w.sessions"
        )
    until(lambda: pool.row("SELECT beat_at FROM agentos.workers") > before)  # the next one was far away
    pool.log.with_name("go").touch()
    assert handle.result(60) == "told"
    assert pool.counters(handle) == (1, 0, 0)
    assert worker.said("starting over") is None
    assert coordinator.said("none of their sessions") is None


def test_one_that_cannot_come_back_begins_nothing_until_it_does(pool: Pool, lonely: str) -> None:
    """Its leases may be others' by then, though its TTL is far from over."""
    db = Database(lonely)
    with Presence(db, role="worker", kinds=["quick"], settings=load_settings(dsn=lonely, ttl_s=LONG_S)) as presence:
        until(lambda: pool.row(MINE) >= (2,))
        assert presence.trusted()
        with pool.db.connection() as conn:
            conn.execute("ALTER ROLE lonely NOLOGIN")
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lonely'")
        until(lambda: not presence.trusted())
        assert presence.heartbeat.age_s < LONG_S / 3
        with pool.db.connection() as conn:
            conn.execute("ALTER ROLE lonely LOGIN")
        until(presence.trusted)
    db.close()


def test_it_can_be_switched_off() -> None:
    on, off = ({duty.name for duty in duties(load_settings(gone_s=gone_s))} for gone_s in (None, 0))
    assert on - off == {"gone"}
