"""A handler that misbehaves takes down nothing but its own attempt."""

import signal
import time

from tests.coordinator.daemon import until
from tests.worker.bad_app import BAD
from tests.worker.pool import Pool, Sweeping, ended

from agentos.core.app import App
from agentos.store.calls import tasks


def test_every_bad_handler_fails_alone_and_its_neighbours_do_not_notice(pool: Pool, sweeping: Sweeping) -> None:
    worker = pool.worker(app="tests.worker.bad_app:app", concurrency=40)
    patient = pool.submit("wait")
    pool.until_effect("waiting")
    send = App(dsn=pool.dsn).submit
    neighbours = [pool.submit("quick", n=n) for n in range(50)]
    for kind in BAD:
        pool.db.run(tasks.submit(kind, kind, "a title", "{}", max_attempts=1, timeout_s=_timeout(kind)))
    neighbours += [send("quick", {"n": n}) for n in range(50, 100)]
    assert [handle.result(60) for handle in neighbours] == list(range(100))
    handles = {kind: App(dsn=pool.dsn).handle(kind) for kind in BAD}
    assert {kind: ended(handle, 60) for kind, handle in handles.items()} == dict.fromkeys(BAD, "failed")
    reasons = {kind: pool.db.run(tasks.task_progress(kind)).reason or "" for kind in BAD}
    assert {kind: reasons[kind] for kind, says in BAD.items() if says not in reasons[kind]} == {}
    pool.log.with_name("go").touch()
    assert patient.result(60) == "told"
    assert pool.counters(patient) == (1, 0, 0)
    assert worker.process.poll() is None
    assert len(pool.rows("SELECT 1 FROM agentos.workers")) == 1
    assert not pool.effects("never")
    assert sorted(pool.effects("ran")) == sorted(f"ran {n}" for n in range(100))
    assert pool.rows("SELECT 1 FROM agentos.lease_held") == []
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0  # although threads and a deaf handler are left


def _timeout(kind: str) -> float | None:
    return 0.3 if kind.startswith("hangs") else None


def test_a_cancelled_task_reaches_its_running_handler_within_a_beat(pool: Pool) -> None:
    pool.worker("--beat", "1", ttl=60.0)
    running = [pool.submit("wait"), pool.submit("journey", steps=1, pause_after=0)]
    pool.until_effect("waiting")
    pool.until_effect("paused")
    since = time.monotonic()
    assert [handle.cancel() for handle in running] == ["running"] * 2
    assert [ended(handle) for handle in running] == ["cancelled"] * 2
    assert time.monotonic() - since < 15  # a busy machine; by the default of this TTL a beat would be each 5 s
    assert pool.effects("cancelled")
    assert pool.rows("SELECT DISTINCT status, failures, crashes FROM agentos.outcomes") == [("cancelled", 0, 0)]


def test_a_kind_that_nobody_serves_is_never_claimed_and_stays_ready(pool: Pool) -> None:
    stranger = App(dsn=pool.dsn).submit("stranger", {})
    other_queue = App(dsn=pool.dsn).submit("quick", {"n": 1}, queue="elsewhere")
    shell = App(dsn=pool.dsn).submit("shell", {"command": "echo no"})
    pool.worker()
    assert [pool.submit("quick", n=n).result(60) for n in range(3)] == [0, 1, 2]
    assert [pool.counters(handle) for handle in (stranger, other_queue, shell)] == [(0, 0, 0)] * 3
    assert len(pool.rows("SELECT 1 FROM agentos.lease_ready")) == 3
    pool.worker("--allow-kind", "shell", "--queue", "elsewhere", "--queue", "default")
    assert other_queue.result(60) == 1
    assert shell.result(60)["exit_code"] == 0
    assert pool.counters(stranger) == (0, 0, 0)


def test_when_no_beat_gets_through_nothing_new_is_begun_and_handlers_end_before_the_ttl(pool: Pool) -> None:
    """The workers row is locked from outside: the process lives, the database lives, the beat does not arrive."""
    ttl_s = 12.0  # a beat each 4 s
    worker = pool.worker(ttl=ttl_s)
    patient = pool.submit("wait")
    busy = pool.submit("busy")
    pool.until_effect("busy")
    pool.until_effect("waiting")
    until(lambda: pool.row("SELECT clock_timestamp() - beat_at > '3 s' FROM agentos.workers")[0])  # the next is near
    with pool.db.connection() as locker, locker.transaction():
        locker.execute("SELECT 1 FROM agentos.workers FOR UPDATE")
        locked = time.monotonic()
        (age_s,) = pool.row("SELECT extract(epoch FROM clock_timestamp() - beat_at)::float8 FROM agentos.workers")
        pool.until_effect("cancelled")
        cancelled_s = time.monotonic() - locked
        assert cancelled_s < ttl_s  # 0.9 of it after the last beat: what is left is for a busy machine
        assert ttl_s * 2 / 3 < cancelled_s + age_s
        begun = [float(line.split(" ")[1]) - locked for line in pool.effects("busy")]
        assert max(begun) < ttl_s * 2 / 3 + 0.1
    pool.log.with_name("go").touch()  # the beat arrives late but in time: the worker is alive and takes them again
    assert patient.result(60) == "told"
    assert busy.result(60) is None
    assert pool.counters(patient)[1:] == (0, 0)
    assert worker.process.poll() is None
