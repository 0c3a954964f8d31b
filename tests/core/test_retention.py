"""Rounds of retention on a real database: killed at each step, beside work, and by a role that owns nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
from tests.store import engine
from tests.store.test_blob_calls import BODIES, commit
from tests.store.test_roles import login, prefix, with_roles  # noqa: F401  two of them fixtures

from agentos.coordinator.duties import tidy
from agentos.core import retention
from agentos.core.retention import Policy, Retention
from agentos.store.calls import blobs, items, rewind, tasks, workers
from agentos.store.calls import retention as calls
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.run import Call
from agentos.testing.clock import Clock

Conn = psycopg.Connection[Any]
DAY = 86_400
POLICY = Policy(30, 30, 30, 30, 14, 400, 400, 30, 600)


class Killed(BaseException):
    """What ends the process here: nothing may catch it."""


@pytest.fixture
def old(db: Database, clock: Clock) -> Database:
    """Ended and open tasks of 31 days ago: their outcomes and events are in partitions that are to go."""
    worker = engine.register(db, kinds=["quick"])
    for n in range(20):
        engine.submit(db, f"task-{n}", kind="quick")
    worker.complete(*worker.claim(20))
    engine.create(db, "half", {f"item-{n}": [] for n in range(4)})
    worker = engine.register(db)
    worker.complete(*worker.claim(3))
    clock.advance(31 * DAY)
    db.run(workers.ensure_partitions())
    return db


def partitions(conn: Conn) -> list[tuple[str, bool]]:
    """Day partitions of before today, and whether they are one still."""
    return conn.execute(
        "SELECT c.relname::text, i.inhrelid IS NOT NULL FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
        " WHERE c.relnamespace = 'agentos'::regnamespace AND c.relname ~ '^(outcomes|events)_[0-9]+$'"
        " AND to_date(split_part(c.relname, '_', 2), 'YYYYMMDD') < (agentos.clock() - interval '3 days')::date"
        " AND c.relkind = 'r' ORDER BY 1"
    ).fetchall()


async def whole(db: AsyncDatabase, policy: Policy = POLICY) -> retention.Did:
    """One pass over everything."""
    did = await Retention(policy).round(db, 60)
    assert did.done
    return did


def assert_only_the_living_are_left(conn: Conn, db: Database, before: set[str]) -> None:
    assert {name for name, _ in partitions(conn)} == {name for name in before if not is_due(db, name)}
    assert conn.execute("SELECT task_id FROM agentos.task_records").fetchall() == [("half",)]
    assert sorted(engine.places(db, "half").values()) == ["completed"] * 3 + ["ready"]


def is_due(db: Database, name: str) -> bool:
    parent, _, day = name.partition("_")
    ended = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    return ended <= db.run(calls.database_time()) - timedelta(days=30 if parent == "outcomes" else 14)


@dataclass(slots=True)
class Mortal:
    """A database handle whose process dies at the `left`-th border between two commits: each call has one before and
    one after it.
    """

    db: AsyncDatabase
    left: int
    pooled: bool = False

    def border(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    async def run(self, call: Call[Any]) -> Any:
        self.border()
        got = await self.db.run(call)
        self.border()
        return got

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Any]:
        async with self.db.lent() as conn:
            self.border()
            yield conn
            self.border()


async def test_who_is_killed_between_any_two_commits_has_broken_nothing(
    old: Database, adb: AsyncDatabase, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "REST_S", 0)
    before, states = {name for name, _ in partitions(conn)}, set()
    for left in range(1, 1000):
        try:
            await whole(cast(AsyncDatabase, Mortal(adb, left)))
        except Killed:
            states.add(tuple(attached for _, attached in partitions(conn)))
            assert sorted(engine.places(old, "half").values()) == ["completed"] * 3 + ["ready"]
            assert old.run(tasks.misplaced_items()) == ()
        else:
            break
    else:
        pytest.fail("it never came to its end")
    assert left > 20
    assert any(False in state for state in states), "never killed between detach and drop"
    assert_only_the_living_are_left(conn, old, before)


async def test_a_detach_that_is_killed_while_it_waits_is_finished_by_the_next_round(
    old: Database, adb: AsyncDatabase, conn: Conn, database_dsn: str
) -> None:
    before = {name for name, _ in partitions(conn)}
    with psycopg.connect(database_dsn) as reader:
        reader.execute("SELECT FROM agentos.outcomes, agentos.events LIMIT 1")
        round_ = asyncio.create_task(whole(adb))
        pid = await asyncio.to_thread(waiting_detach, conn)
        reader_sees = asyncio.to_thread(old.run, tasks.get_task("half"))
        assert await reader_sees is not None, "nobody waits for a detach that waits"
        conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await asyncio.to_thread(until, lambda: pending(conn) != [])
        reader.rollback()
    did = await round_
    assert did.blocked
    assert not (await whole(adb)).blocked
    assert_only_the_living_are_left(conn, old, before)


def waiting_detach(conn: Conn) -> int:
    def pid() -> int:
        row = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%CONCURRENTLY' AND wait_event_type = 'Lock'"
        ).fetchone()
        return int(row[0]) if row else 0

    until(lambda: pid() != 0)
    return pid()


def pending(conn: Conn) -> list[Any]:
    return conn.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending").fetchall()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@dataclass(slots=True)
class Meeting:
    """A handle whose first `seal_partition` meets another round that drops that partition: it waits for the lock of the
    other one, which commits once it does.
    """

    db: AsyncDatabase
    other: Conn
    conn: Conn
    pooled: bool = False
    met: str = ""

    async def run(self, call: Call[Any]) -> Any:
        if self.met or "agentos.seal_partition" not in call.sql:
            return await self.db.run(call)
        self.met = call.args[0]
        assert self.other.execute("SELECT agentos.drop_partition(%s)", (self.met,)).fetchone() == (True,)
        sealing = asyncio.create_task(self.db.run(call))
        await asyncio.to_thread(until, lambda: waits_for(self.conn, self.other.info.backend_pid))
        self.other.commit()
        return await sealing

    def lent(self) -> Any:
        return self.db.lent()


def waits_for(conn: Conn, pid: int) -> bool:
    blocked = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE %s = ANY (pg_blocking_pids(a.pid)))"
    return conn.execute(blocked, (pid,)).fetchone() == (True,)


async def test_a_round_that_waits_for_a_partition_another_one_drops_goes_on_with_the_rest(
    old: Database, adb: AsyncDatabase, conn: Conn, database_dsn: str
) -> None:
    before = {name for name, _ in partitions(conn)}
    with psycopg.connect(database_dsn) as other:
        meeting = Meeting(adb, other, conn)
        did = await whole(cast(AsyncDatabase, meeting))
    assert did.blocked == {}
    assert set(did.partitions) == {name for name in before if is_due(old, name)} - {meeting.met}
    assert_only_the_living_are_left(conn, old, before)


async def test_eight_workers_lose_nothing_while_partitions_go_and_two_coordinators_take_them(
    old: Database, database_dsn: str, conn: Conn
) -> None:
    before, over = {name for name, _ in partitions(conn)}, asyncio.Event()
    async with AsyncExitStack() as stack:
        handles = [await AsyncDatabase.open(database_dsn, max_size=1) for _ in range(10)]
        for handle in handles:
            stack.push_async_callback(handle.close)
        work = [asyncio.create_task(work_until(over, handle, n)) for n, handle in enumerate(handles[:8])]
        await asyncio.gather(*(whole(handle) for handle in handles[8:]))
        again = await whole(handles[8])
        over.set()
        made = sum([await task for task in work])
    assert not again.blocked
    assert made >= 16
    assert conn.execute(
        "SELECT status, count(*) FROM agentos.tasks WHERE task_id LIKE 'new-%' GROUP BY 1"
    ).fetchall() == [("completed", made)]
    assert {name for name, _ in partitions(conn)} & before == {name for name in before if not is_due(old, name)}


async def work_until(over: asyncio.Event, db: AsyncDatabase, n: int) -> int:
    """Submit, claim, complete, and rewind what was completed once, all the time. Returns how many tasks."""
    kind, worker_id, made = f"kind-{n}", n + 1, 0
    await db.run(engine_register(worker_id, kind))
    lanes = await db.run(workers.lanes_of(("default",), (kind,)))
    while not over.is_set():
        name = f"new-{n}-{made}"
        await db.run(tasks.submit(name, kind, "title", "{}"))
        for rewound in (False, True):
            if rewound:
                await db.run(rewind.rewind_task(name, 0, "{}", "me"))
            (item,) = (await db.run(items.claim(worker_id, 0, lanes, 1))).items
            assert await db.run(items.complete(worker_id, [(item.item_id, item.token, "1")])) == frozenset()
        assert (await db.run(tasks.task_progress(name))).status == "completed"
        made += 1
    return made


def engine_register(worker_id: int, kind: str) -> Call[Any]:
    serves = json.dumps({"queues": ["default"], "kinds": [kind], "concurrency": 8})
    return workers.register_worker(
        worker_id, label="w", host="h", pid=1, process="p", version="0", role="worker", ttl_s=600, serves=serves
    )


async def test_a_coordinators_login_that_owns_no_table_drops_partitions_too(
    old: Database,
    conn: Conn,
    database_dsn: str,
    with_roles: str,  # noqa: F811  the fixture
) -> None:
    before = {name for name, _ in partitions(conn)}
    db = await AsyncDatabase.open(login(conn, database_dsn, with_roles, "coordinator"))
    try:
        now = await db.run(calls.database_time())
        due = await db.run(calls.partitions_due(now - timedelta(days=30), now - timedelta(days=14)))
        assert {each.owned for each in due} == {False}
        assert (await whole(db)).blocked == {}
    finally:
        await db.close()
    assert_only_the_living_are_left(conn, old, before)


async def test_a_policy_of_never_keeps_all(old: Database, adb: AsyncDatabase, conn: Conn) -> None:
    before = partitions(conn)
    did = await whole(adb, Policy(None, None, None, None, None, None, None, None, None))
    assert (did.retired, did.trimmed, did.partitions, did.forgotten) == (0, 0, [], 0)
    assert partitions(conn) == before
    assert engine.count(conn, "task_records") == 21


async def test_outcomes_may_stay_longer_than_their_tasks_and_those_of_the_living_do_always(
    old: Database, adb: AsyncDatabase, conn: Conn
) -> None:
    before = {name for name, _ in partitions(conn)}
    outcomes = engine.count(conn, "outcomes")
    await whole(adb, replace(POLICY, outcomes_d=60))
    left = {name for name, _ in partitions(conn)}
    assert left == {name for name in before if name.startswith("outcomes") or not is_due(old, name)}
    assert (engine.count(conn, "task_records"), engine.count(conn, "outcomes")) == (1, outcomes)
    await whole(adb)
    assert_only_the_living_are_left(conn, old, before)
    assert engine.count(conn, "outcomes") == 3


async def test_parts_go_after_their_seconds_and_never_while_a_task_names_them(
    adb: AsyncDatabase, db: Database, conn: Conn, clock: Clock
) -> None:
    (shared, body), (alone, _) = BODIES.items()
    for name, names in (("task-1", list(BODIES)), ("open", [shared])):
        engine.submit(db, name)
        await adb.run(commit(name, names, {each: BODIES[each] for each in names}))
    assert db.run(blobs.drop_blobs("task-1")) == 2
    clock.advance(3599)
    for kept_s, due in ((None, None), (3600, (0, 0))):
        assert (await whole(adb, replace(POLICY, blobs_s=kept_s))).parts == 0
        await tidy(adb, kept_s)
        assert kept_s is None or db.run(blobs.collectable_blobs(kept_s, 10)) == due
    assert set(db.run(blobs.get_blobs([shared, alone]))) == {shared, alone}
    clock.advance(2)
    assert db.run(blobs.collectable_blobs(3600, 10))[0] == 1
    assert (await whole(adb, replace(POLICY, blobs_s=3600))).parts == 1
    assert db.run(blobs.get_blobs([shared, alone])) == {shared: body}


def test_what_is_looked_for_by_a_policy() -> None:
    assert POLICY.walks() == ((("tasks",), 30),)
    assert Policy(30, 7, 30, 7, 14, 1, 1, 30, 600).walks() == ((("tasks",), 30), (("checkpoints", "cache"), 7))
    assert Policy(None, 7, None, 9, 14, 1, 1, None, 600).walks() == ((("checkpoints",), 7), (("cache",), 9))
