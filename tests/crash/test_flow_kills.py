"""Whoever claims under a limit, sets one, or pauses a queue may die before, during and after its commit."""

from typing import Any

import psycopg
import pytest
from tests.store import engine

from agentos.store.calls import flow, items, tasks, workers
from agentos.store.connect import Database
from agentos.testing.crash import CRASH_TIMES, Saboteur, parse
from agentos.testing.fork import in_child


def held(conn: psycopg.Connection[Any]) -> int:
    return engine.count(conn, "lease_held")


def lanes(db: Database) -> list[int]:
    return [each.lane for each in db.run(flow.served_lanes(["default"], ["shell"], [0])).lanes if each.limited]


def claim(db: Database, worker: engine.Worker, sign: int = 1) -> int:
    return len(db.run(items.claim_limited(worker.worker_id, 0, [sign * lane for lane in lanes(db)], 10)))


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_a_claim_under_a_limit_is_whole_or_not_there_and_its_places_come_back(
    db: Database, conn: psycopg.Connection[Any], database_dsn: str, when: str
) -> None:
    db.run(flow.set_limit("queue", "default", "concurrency", 2))
    db.run(tasks.submit_many([f"t{n}" for n in range(4)], "shell", "t", ["{}"] * 4))
    doomed, other = engine.register(db), engine.register(db)

    def die(tell: Any) -> None:
        Saboteur(parse(f"{when}:claim_limited"), tell).install()
        claim(Database(database_dsn), doomed)

    assert in_child(die, timeout_s=60).killed
    places = claim(db, other)
    assert held(conn) == 2
    assert places == {"before": 2, "after": 0}.get(when, places)
    assert places in {0, 2}
    engine.crash(db, doomed)
    assert claim(db, other) + claim(db, other, -1) + places == 2
    assert held(conn) == 2


@pytest.mark.parametrize("when", CRASH_TIMES)
@pytest.mark.parametrize("call", ["set_limit", "pause_queue"])
def test_a_limit_or_a_pause_is_there_or_not_and_may_be_said_again(
    db: Database, conn: psycopg.Connection[Any], database_dsn: str, call: str, when: str
) -> None:
    db.run(tasks.submit_many([f"t{n}" for n in range(4)], "shell", "t", ["{}"] * 4))
    worker = engine.register(db)
    said = {
        "set_limit": flow.set_limit("queue", "default", "concurrency", 1),
        "pause_queue": flow.pause_queue("default"),
    }[call]

    def die(tell: Any) -> None:
        Saboteur(parse(f"{when}:{call}"), tell).install()
        Database(database_dsn).run(said)

    assert in_child(die, timeout_s=60).killed
    again = db.run(said)
    if when != "during":  # the server may still be at it
        assert again is (when == "before"), "said again, it tells whether it was new"
    raised = conn.execute("SELECT claim_epoch FROM agentos.workers").fetchone()
    assert raised == (1,) or (raised == (2,) and when == "during"), "both may have seen it unset"
    epoch = db.run(workers.adopt(worker.worker_id)).claim_epoch
    served = db.run(flow.served_lanes(["default"], ["shell"], [0])).lanes
    if call == "pause_queue":
        assert served == ()
    else:
        assert len(db.run(items.claim_limited(worker.worker_id, epoch, [each.lane for each in served], 4))) == 1
