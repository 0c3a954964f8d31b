"""Between two beats: who beats hears at once what the server says unasked, and is never late because of it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from tests.coordinator.daemon import until

from agentos.core.presence import Presence
from agentos.core.process import monotonic
from agentos.store.calls import workers
from agentos.store.connect import Database
from agentos.store.settings import load_settings

Beating = Callable[..., tuple[Presence, "queue.SimpleQueue[frozenset[str]]"]]


@pytest.fixture
def beating(db: Database) -> Iterator[Beating]:
    """Starts one that beats every `beat_s` seconds, and what it hears; the first is that it listens."""
    started: list[Presence] = []

    def start(beat_s: float) -> "tuple[Presence, queue.SimpleQueue[frozenset[str]]]":
        heard: queue.SimpleQueue[frozenset[str]] = queue.SimpleQueue()
        presence = Presence(db, role="worker", settings=load_settings(ttl_s=beat_s * 4, beat_s=beat_s))
        presence.heartbeat.on_notice = heard.put
        started.append(presence.start())
        assert heard.get(timeout=10) == frozenset()
        return presence, heard

    yield start
    for each in started:
        each.stop()


def test_a_notice_is_heard_between_two_beats_and_the_end_is_not_waited_for(db: Database, beating: Beating) -> None:
    presence, heard = beating(beat_s=60)
    db.run(workers.wake(["mail", "web"]))
    found = heard.get(timeout=10)
    while found != {"mail", "web"}:
        found |= heard.get(timeout=10)
    since = monotonic()
    presence.stop()
    assert monotonic() - since < 5


def test_no_flood_of_notices_makes_a_beat_late(db: Database, beating: Beating, conn: psycopg.Connection[Any]) -> None:
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            db.run(workers.wake([f"queue-{n}" for n in range(50)]))

    presence, heard = beating(beat_s=0.3)
    flooding = [threading.Thread(target=flood) for _ in range(2)]
    for each in flooding:
        each.start()
    mine = "SELECT beat_at FROM agentos.workers WHERE worker_id = %s"
    beats: list[Any] = []
    while len(beats) < 8:
        found = conn.execute(mine, [presence.worker_id]).fetchall()
        beats += [beat_at for (beat_at,) in found if beat_at not in beats]
        time.sleep(0.02)  # a look at a row that changes all the time
    over.set()
    for each in flooding:
        each.join()
    assert sum(len(heard.get()) for _ in range(heard.qsize())) > 1000
    gaps = sorted((late - early).total_seconds() for early, late in pairwise(beats))
    assert gaps[len(gaps) // 2] < 3  # a busy machine; who heard all of a flood first would not beat at all


def test_a_session_that_the_server_ends_is_replaced_long_before_the_next_beat(
    beating: Beating, conn: psycopg.Connection[Any]
) -> None:
    _, heard = beating(beat_s=60)
    beat = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'agentos-beat%'"
    )
    before = conn.execute(beat).fetchone()
    conn.execute("SELECT pg_terminate_backend(%s)", before)
    assert heard.get(timeout=10) == frozenset()  # it listens again: what was said meanwhile may be lost
    assert until(lambda: conn.execute(beat).fetchone()) != before
