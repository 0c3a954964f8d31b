"""What a worker and a coordinator tell Prometheus of what really happened to them."""

import signal

import psutil
import psycopg
from tests.coordinator.daemon import until
from tests.core.metrics.scrape import Scrape, scrape
from tests.worker.pool import Pool
from tests.worker.test_health import ANY_PORT, port_of

from agentos.core.metrics.names import COORDINATOR, POOL, PROCESS, WORKER, Metric


def told(found: Scrape, metrics: tuple[Metric, ...]) -> None:
    """All of these and no other, with their types, and no label that they do not have."""
    ours = {name: kind for name, kind in found.families.items() if name.startswith("agentos_")}
    assert ours == {metric.name: metric.kind for metric in metrics}
    for metric in metrics:
        seen = found.labels.get(metric.name, set()) - {"le"}
        assert seen in ({*metric.labels}, set()), metric.name


def count(pool: Pool, *args: str) -> int:
    return int(pool.row(*args)[0])


def test_a_worker_tells_what_it_did(pool: Pool) -> None:
    pool.coordinator()
    port = port_of(pool.worker(*ANY_PORT, app="tests.worker.metrics_app:app", concurrency=3))
    assert scrape(port).value("agentos_claimed_items_total") == 0
    pool.submit("works").result(60)
    pool.submit("fails_once").result(60)
    handle = pool.submit("holds")
    pool.until_effect("holding")
    found = until(lambda: (s := scrape(port)).value("agentos_lease_age_seconds") > 0 and s)
    assert found
    told(found, (*PROCESS, *WORKER))
    assert found.value("agentos_build_info", role="worker") == 1
    assert found.value("agentos_database_connected") == 1
    assert (found.value("agentos_slots"), found.value("agentos_running_attempts")) == (3, 1)
    assert found.value("agentos_held_leases") == 1
    assert 0 < found.value("agentos_lease_age_seconds") < 60
    assert found.value("agentos_claimed_items_total") == 4
    assert abs(found.value("agentos_clock_skew_seconds")) < 30  # one clock, seen over half a round trip
    assert found.value("agentos_attempts_total", kind="works", outcome="completed") == 1
    assert found.value("agentos_attempts_total", kind="fails_once", outcome="retried") == 1
    assert found.value("agentos_attempts_total", kind="fails_once", outcome="completed") == 1
    assert found.value("agentos_attempt_seconds_count", kind="works", outcome="completed") == 1
    assert found.value("agentos_attempt_seconds_sum", kind="works", outcome="completed") >= 0.05
    assert found.total("agentos_claim_seconds_count") >= 4
    assert found.value("agentos_complete_seconds_count") == 2
    assert found.value("agentos_checkpoint_seconds_count") == 1
    assert found.value("agentos_tool_calls_total", tool="lookup", outcome="executed") == 1
    assert found.value("agentos_llm_calls_total", model="m", outcome="paid") == 1
    assert found.value("agentos_llm_calls_total", model="m", outcome="saved") == 1
    assert found.value("agentos_llm_tokens_total", model="m", outcome="saved") == 7 + 5
    assert found.value("process_resident_memory_bytes") > 1e6
    pool.log.with_name("go").touch()
    handle.result(60)


def test_a_zombie_counts_its_fenced_writes(pool: Pool) -> None:
    """It is frozen past its TTL; when it thaws, what it completes is refused."""
    coordinator = pool.coordinator(*ANY_PORT)
    worker = pool.worker(*ANY_PORT, app="tests.worker.metrics_app:app")
    handle = pool.submit("holds")
    pool.until_effect("holding")
    worker.signal(signal.SIGSTOP)
    pool.expire(worker)
    until(lambda: scrape(port_of(coordinator)).total("agentos_reclaims_total"))
    worker.signal(signal.SIGCONT)
    port = port_of(worker)
    until(lambda: scrape(port).value("agentos_declared_dead_total") == 1)
    pool.log.with_name("go").touch()
    handle.result(60)
    until(lambda: scrape(port).total("agentos_attempts_total", kind="holds", outcome="lost") == 1)
    found = scrape(port_of(coordinator))
    told(found, (*PROCESS, *COORDINATOR, *POOL))
    assert found.value("agentos_leading") == 1
    assert found.value("agentos_reclaims_total", outcome="crashed") == 1
    assert found.value("agentos_duty_seconds_count", duty="reclaim", outcome="done") >= 1
    assert found.value("agentos_duty_age_seconds", duty="reclaim") < 60


def test_a_refused_write_is_counted_where_it_is_refused(pool: Pool, conn: psycopg.Connection[object]) -> None:
    port = port_of(pool.worker(*ANY_PORT, app="tests.worker.metrics_app:app", ttl=60))
    pool.submit("holds")
    pool.until_effect("holding")
    conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")  # as if another worker held it
    pool.log.with_name("go").touch()
    until(lambda: scrape(port).value("agentos_fenced_writes_total") == 1)


def test_the_client_of_prometheus_is_imported_by_the_first_scrape_only(pool: Pool) -> None:
    worker = pool.worker(*ANY_PORT, app="tests.worker.metrics_app:app")
    assert pool.submit("imported").result(60) is False
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    scrape(port_of(worker))
    grown_mib = (process.memory_info().rss - before) / 2**20
    print(f"a worker with a health port: {before / 2**20:.1f} MiB, and {grown_mib:.1f} more after a scrape")
    assert grown_mib < 10
    assert pool.submit("imported").result(60) is True


def test_the_leader_tells_of_the_whole_pool_and_nobody_else_does(pool: Pool) -> None:
    """What it counted: two items that nobody can run yet, and a transaction that somebody forgot."""
    for _ in range(2):
        pool.submit("works")
    with psycopg.connect(pool.dsn) as forgotten:
        forgotten.execute("SELECT 1")
        leader = pool.coordinator(*ANY_PORT, ttl=15)
        leader.until_said('"leading"')
        found = until(lambda: (s := scrape(port_of(leader))).all("agentos_items", ()) and s)
    assert found
    lane = {"queue": "default", "kind": "works", "version": "0"}
    assert found.value("agentos_items", place="ready", **lane) == 2
    assert found.value("agentos_items", place="held", **lane) == 0
    assert 0 < found.value("agentos_oldest_ready_seconds", **lane) < 120
    assert found.value("agentos_ended_items_total", outcome="completed", **lane) == 0
    assert found.value("agentos_statistics_age_seconds") < 60
    assert found.value("agentos_unroutable_lanes") == 1
    assert found.value("agentos_stuck_tasks", reason="unroutable") == 0, "nobody has looked twice yet"
    assert found.value("agentos_workers", state="alive") == 0
    assert found.value("agentos_open_doubts") == 0
    assert found.value("agentos_partitions_ahead_days", table="outcomes") == 7
    assert found.value("agentos_oldest_transaction_seconds") > 0
    assert found.value("agentos_horizon_age_transactions") >= 0
    waits = pool.coordinator(*ANY_PORT, ttl=15)
    other = scrape(port_of(waits))
    assert other.value("agentos_leading") == 0
    assert other.all("agentos_items", ()) == other.all("agentos_workers", ()) == []
