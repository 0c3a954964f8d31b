"""Claims while the vacuum horizon is pinned: they do not walk over all that was ever claimed, and still find all."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.store import engine
from tests.store.test_scale import FILL

from agentos.store.calls import items
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import Database, OnConnection, connect
from agentos.testing.clock import Clock

DEAD = 6_000
LONG = 2_000
"""What pick_ready calls a long walk, of one lane."""
LATER_S = 55.0
"""By then every floor's full look is due."""


@contextmanager
def pinned(dsn: str) -> Iterator[None]:
    """A reader that somebody forgot."""
    with connect(dsn) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM agentos.lanes")
        yield


@pytest.fixture
def pin(database_dsn: str) -> Iterator[None]:
    with pinned(database_dsn):
        yield


class Session:
    """One claimer's database session, and how many index entries its last claim walked over in vain."""

    def __init__(self, conn: psycopg.Connection[object], worker: engine.Worker) -> None:
        self.conn, self.worker, self.walked = conn, worker, 0

    def claim(self, limit: int = 8) -> tuple[ClaimedItem, ...]:
        with self.conn.transaction():
            before = self._walked()
            found = self.worker.claim(limit, on=OnConnection(self.conn))
            self.walked = self._walked() - before - len(found)
        return found

    def drain(self, limit: int = 200) -> list[int]:
        taken = []
        while found := self.claim(limit):
            taken += [item.item_id for item in found]
            assert self.worker.complete(*found, on=OnConnection(self.conn)) == frozenset()
        return taken

    def floors(self) -> str:
        row = self.conn.execute("SELECT coalesce(nullif(current_setting('agentos.floors', true), ''), '{}')").fetchone()
        return str(row[0]) if row else ""  # type: ignore[index]

    def _walked(self) -> int:
        row = self.conn.execute("SELECT agentos.ready_walked()").fetchone()
        return int(row[0]) if row else 0  # type: ignore[index]


@pytest.fixture
def session(db: Database) -> Iterator[Session]:
    with db.connection() as conn:
        yield Session(conn, engine.register(db, ttl_s=600))


def fill(conn: psycopg.Connection[object], session: Session, count: int = DEAD) -> None:
    conn.execute(FILL, {"lane": session.worker.lanes[0], "count": count})


@pytest.fixture
def floored(pin: None, conn: psycopg.Connection[object], session: Session) -> Session:
    """A session that has learnt where its drained lane begins."""
    fill(conn, session)
    assert len(session.drain()) == DEAD
    assert session.claim() == ()
    assert session.floors() != "{}"
    return session


@pytest.mark.unsound("its items are of no whole task")
def test_a_claim_does_not_walk_over_what_was_claimed_before(db: Database, floored: Session) -> None:
    engine.submit(db, "fresh")
    assert [item.task_id for item in floored.claim()] == ["fresh"]
    assert floored.walked < LONG


@pytest.mark.unsound("its items are of no whole task")
def test_many_lanes_of_which_none_is_a_long_walk_get_no_floors(
    pin: None, db: Database, conn: psycopg.Connection[object]
) -> None:
    """With 1,000 tenants each claim spent more on the floors of its lanes than on all the rest."""
    with db.connection() as mine:
        session = Session(mine, engine.register(db, kinds=[f"kind-{n}" for n in range(150)], ttl_s=600))
        for lane in session.worker.lanes:
            conn.execute(FILL, {"lane": lane, "count": 20})
        assert len(session.drain()) == 150 * 20
        assert session.claim() == ()
        assert session.walked > LONG
        assert session.floors() == "{}"


@pytest.mark.unsound("its items are of no whole task")
def test_a_claim_out_of_a_bulk_of_one_rank_does_not_either(
    pin: None, conn: psycopg.Connection[object], session: Session
) -> None:
    conn.execute(FILL.replace("SELECT lane, rank, item_id", "SELECT lane, 1, item_id"), {
        "lane": session.worker.lanes[0], "count": DEAD,
    })  # fmt: skip
    walked = []
    while found := session.claim(200):
        walked.append(session.walked)
        session.worker.complete(*found, on=OnConnection(session.conn))
    assert sorted(walked)[-4] < LONG + 200, f"but for a full look now and then: {walked}"


@pytest.mark.unsound("its items are of no whole task")
@pytest.mark.parametrize("how", ["a retry", "priority", "a late commit", "a clock set back"])
def test_what_comes_under_the_floor_is_found_by_a_full_look(
    database_dsn: str, db: Database, clock: Clock, floored: Session, how: str
) -> None:
    match how:
        case "a retry":
            engine.submit(db, "late")
            (item,) = floored.claim()
            clock.advance(5)
            assert floored.claim() == ()
            db.run(items.release(floored.worker.worker_id, [(item.item_id, item.token)]))
        case "priority":
            engine.submit(db, "late", priority=9)
        case "a late commit":
            with connect(database_dsn) as slow, slow.transaction():
                engine.submit(OnConnection(slow), "late")
                clock.advance(3)
                assert floored.claim() == ()
        case _:
            clock.advance(-3600)
            engine.submit(db, "late")
    clock.advance(LATER_S)
    assert [item.task_id for item in floored.claim()] == ["late"]


@pytest.mark.unsound("its items are of no whole task")
def test_whoever_has_no_floor_finds_it_at_once(db: Database, floored: Session) -> None:
    engine.submit(db, "urgent", priority=9)
    with db.connection() as other:
        assert [item.task_id for item in Session(other, floored.worker).claim()] == ["urgent"]


@pytest.mark.unsound("its items are of no whole task")
def test_a_lane_has_its_own_floor(db: Database, floored: Session) -> None:
    both = engine.register(db, kinds=("shell", "llm"), ttl_s=600)
    engine.submit(db, "other-lane", kind="llm", priority=9)
    floored.worker = both
    assert [item.task_id for item in floored.claim()] == ["other-lane"]


@pytest.mark.unsound("its items are of no whole task")
def test_floors_go_when_the_pin_has_gone(
    database_dsn: str, db: Database, conn: psycopg.Connection[object], session: Session, clock: Clock
) -> None:
    with pinned(database_dsn):
        fill(conn, session)
        session.drain()
        assert session.floors() != "{}"
    conn.execute("VACUUM agentos.lease_ready")
    clock.advance(LATER_S)
    session.claim()
    assert session.floors() == "{}"


@pytest.mark.unsound("its items are of no whole task")
def test_claimers_with_floors_lose_nothing_and_double_nothing(
    pin: None, db: Database, conn: psycopg.Connection[object], session: Session, clock: Clock
) -> None:
    fill(conn, session)
    with db.connection() as second:
        other = Session(second, engine.register(db, ttl_s=600))
        seen: list[int] = []
        for turn in range(400):
            claimer = (session, other)[turn % 2]
            found = claimer.claim(20)
            kept, given_back = found[: len(found) - turn % 3], found[len(found) - turn % 3 :]
            claimer.worker.complete(*kept)
            db.run(items.release(claimer.worker.worker_id, [(item.item_id, item.token) for item in given_back]))
            seen += [item.item_id for item in kept]
        clock.advance(LATER_S)
        seen += session.drain() + other.drain()
    assert len(seen) == len(set(seen)) == DEAD
