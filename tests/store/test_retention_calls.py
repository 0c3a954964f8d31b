"""What retention takes away, and what it must leave: the functions, over both drivers."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine
from tests.store.test_blob_calls import BODIES, commit

from agentos.store.calls import blobs, checkpoints, forks, items, ledger, purge, rewind, tasks, timeline, workers
from agentos.store.calls import retention as calls
from agentos.store.calls.retention import Kind
from agentos.store.errors import DatabaseBusy, PartitionRefused, TaskExists, TaskRetired
from agentos.testing.clock import Clock

Conn = psycopg.Connection[Any]
DAY = 86_400
TABLES = (
    "task_records", "work_items", "task_heads", "checkpoints", "tool_ledger", "llm_cache", "blob_refs", "submit_keys",
    "item_deps", "signals", "approvals", "outcomes_kept", "events_kept",
)  # fmt: skip


def retire(db: Driver, days: float = 30, kinds: tuple[Kind, ...] = ("tasks",)) -> int:
    """All that ended so long ago, and their rows, a few at a time."""
    before = db.run(calls.database_time()) - timedelta(days=days)
    at: datetime | None = None
    task, count = None, 0
    while True:
        found = db.run(calls.retire_slice(at, task, before, kinds, 3))
        count += found.count
        while db.run(calls.clear_retired(2, 3)):
            pass
        if found.at is None:
            return count
        at, task = found.at, found.task_id


def pass_days(db: Driver, clock: Clock, days: float) -> None:
    clock.advance(days * DAY)
    db.run(workers.ensure_partitions())


def end(db: Driver, *names: str) -> None:
    """Tasks of one item that completed."""
    worker = engine.register(db, kinds=["quick"])
    for name in names:
        engine.submit(db, name, kind="quick")
        worker.complete(*worker.claim())


def end_plan(db: Driver, name: str, *, items: int = 1, left: int = 0) -> None:
    """A task of several items, `left` of which are open."""
    engine.create(db, name, {f"item-{n}": [] for n in range(items + left)})
    worker = engine.register(db)
    worker.complete(*worker.claim(items))


def due(db: Driver, days: float = 30, events: float = 14) -> dict[str, str]:
    """The state of each partition that is to go."""
    now = db.run(calls.database_time())
    found = db.run(calls.partitions_due(now - timedelta(days=days), now - timedelta(days=events)))
    return {each.name: each.state for each in found}


def keep(db: Driver, name: str) -> None:
    if name.startswith("outcomes"):
        item: int | None = 0
        while item is not None:
            item = db.run(calls.keep_outcomes(name, item, 2))
    else:
        task: str | None = ""
        while task is not None:
            task = db.run(calls.keep_events(name, task, 2))


def drop_all(db: Driver) -> list[str]:
    """Every partition whose time has come."""
    gone = list(due(db))
    for name in gone:
        keep(db, name)
        assert db.run(calls.seal_partition(name))
        assert db.run(calls.drop_partition(name))
    return gone


def test_a_task_that_ended_long_ago_goes_whole_and_leaves_word_of_itself(
    runner: Driver, conn: Conn, clock: Clock
) -> None:
    end(runner, "task-1", "task-2")
    end_plan(runner, "task-3", items=2)
    runner.run(commit("task-1"))
    runner.run(ledger.ledger_begin(engine.tool_call(), None, 1, on_doubt="retry", produces="[]", expires_s=DAY))
    pass_days(runner, clock, 29)
    end(runner, "young")
    assert retire(runner) == 0
    pass_days(runner, clock, 2)
    assert retire(runner) == 3
    assert {engine.count(conn, table) for table in TABLES if table not in ("task_records", "work_items")} <= {0, 1}
    assert conn.execute("SELECT task_id FROM agentos.task_records").fetchall() == [("young",)]
    left = runner.run(calls.retired_task("task-1"))
    assert left is not None
    assert (left.kind, left.status, left.retired_at - left.finished_at >= timedelta(days=30)) == (
        "quick",
        "completed",
        True,
    )
    assert runner.run(calls.retired_task("young")) is None
    assert len(drop_all(runner)) > 0
    assert engine.count(conn, "outcomes") == 1


def test_what_has_not_ended_stays_and_so_does_its_family(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "child", "parent", "lonely")
    engine.submit(runner, "open", kind="open")
    end_plan(runner, "half", items=1, left=2)
    runner.run(tasks.create_task("by hand", "without items"))
    conn.execute("UPDATE agentos.task_heads SET parent_task = 'half' WHERE task_id = 'by hand'")
    conn.execute("INSERT INTO agentos.task_heads (task_id, parent_task) VALUES ('child', 'half')")
    pass_days(runner, clock, 365)
    assert retire(runner) == 2
    assert {row[0] for row in conn.execute("SELECT task_id FROM agentos.task_records")} == {
        "child",
        "open",
        "half",
        "by hand",
    }


def test_a_task_whose_outputs_a_living_fork_uses_stays_as_long_as_it(runner: Driver, clock: Clock) -> None:
    end(runner, "task-1")
    runner.run(forks.fork_task("task-1", 0, "fork", "{}", outputs=True, by="me"))
    pass_days(runner, clock, 31)
    assert retire(runner) == 0
    worker = engine.register(runner, kinds=["quick"])
    worker.complete(*worker.claim())
    pass_days(runner, clock, 31)
    assert retire(runner) == 2


def test_a_retired_task_is_refused_and_its_id_is_free_once_its_rows_are_gone(runner: Driver, clock: Clock) -> None:
    end(runner, "task-1")
    pass_days(runner, clock, 31)
    before = runner.run(calls.database_time()) - timedelta(days=30)
    assert runner.run(calls.retire_slice(None, None, before, ("tasks",), 10)).count == 1
    for refused in (rewind.rewind_task("task-1", 0, "{}", "me"), tasks.retry_task("task-1"),
                    forks.fork_task("task-1", 0, "fork", "{}", outputs=False, by="me")):  # fmt: skip
        with pytest.raises(TaskRetired, match="was retired at"):
            runner.run(refused)
    with pytest.raises(TaskExists):
        engine.submit(runner, "task-1")
    assert (runner.run(calls.clear_retired(10, 10)), runner.run(calls.clear_retired(10, 10))) == (1, 0)
    with pytest.raises(TaskRetired):
        runner.run(tasks.task_progress("task-1"))
    engine.submit(runner, "task-1")
    assert runner.run(calls.retired_task("task-1")) is None
    assert engine.place(runner) == "ready"


def test_records_may_go_before_their_task_which_then_goes_on_nowhere(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "task-1")
    engine.submit(runner, "open", kind="open")
    for name in ("task-1", "open"):
        runner.run(commit(name))
    runner.run(ledger.ledger_begin(engine.tool_call(), None, 1, on_doubt="retry", produces="[]", expires_s=DAY))
    pass_days(runner, clock, 8)
    assert retire(runner, 7, ("checkpoints", "cache")) == 1
    assert conn.execute("SELECT task_id FROM agentos.checkpoints").fetchall() == [("open",)]
    assert engine.count(conn, "tool_ledger") == 1
    assert engine.count(conn, "blob_refs") == 2 * len(BODIES)
    assert retire(runner, 7, ("ledger",)) == 1
    assert engine.count(conn, "blob_refs") == len(BODIES)
    assert runner.run(calls.records_retired_at("task-1")) is not None
    assert runner.run(calls.records_retired_at("open")) is None
    for refused in (
        *(rewind.rewind_task("task-1", seq, "{}", "me") for seq in (0, 1)),
        forks.fork_task("task-1", 1, "fork", "{}", outputs=False, by="me"),
        tasks.retry_task("task-1"),
    ):
        with pytest.raises(TaskRetired, match="records of task task-1 were retired"):
            runner.run(refused)
    assert engine.status(runner) == "completed"


def test_parts_that_tasks_share_stay_while_one_of_them_does(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "task-1")
    engine.submit(runner, "open", kind="open")
    for name in ("task-1", "open"):
        runner.run(commit(name))
    pass_days(runner, clock, 31)
    assert retire(runner) == 1
    clock.advance(3600)
    assert runner.run(blobs.collect_blobs()) == 0
    assert set(runner.run(blobs.get_blobs(list(BODIES)))) == set(BODIES)


def test_outcomes_of_what_is_there_move_and_are_never_out_of_sight(runner: Driver, conn: Conn, clock: Clock) -> None:
    end_plan(runner, "half", items=3, left=1)
    end(runner, *(f"task-{n}" for n in range(4)))
    pass_days(runner, clock, 31)
    assert retire(runner) == 4
    (name,) = [each for each in due(runner) if each.startswith("outcomes") and rows_of(conn, each)]
    assert not runner.run(calls.seal_partition(name))
    assert due(runner)[name] == "attached"
    assert not runner.run(calls.drop_partition(name))
    assert due(runner)[name] == "attached"
    drop_all(runner)
    assert engine.count(conn, "outcomes") == engine.count(conn, "outcomes_kept") == 3
    assert sorted(engine.places(runner, "half").values()) == ["completed"] * 3 + ["ready"]
    worker = engine.register(runner)
    worker.complete(*worker.claim())
    assert engine.status(runner, "half") == "completed"
    pass_days(runner, clock, 31)
    assert retire(runner) == 1
    assert engine.count(conn, "outcomes_kept") == 0


def rows_of(conn: Conn, table: str) -> int:
    return engine.count(conn, table)


def test_events_of_what_has_not_ended_move(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "ended")
    for name in ("ended", "open"):
        if name == "open":
            engine.submit(runner, name, kind="open")
        for n in range(3):
            conn.execute("SELECT agentos.note(%s, NULL, 'told', %s, NULL, '{}')", (name, n))
    pass_days(runner, clock, 15)
    drop_all(runner)
    assert [event.attempt for event in runner.run(timeline.task_events("open"))] == [0, 1, 2]
    assert runner.run(timeline.task_events("ended")) == ()


def test_a_sealed_partition_takes_nothing_and_a_fork_of_old_outcomes_does_not_need_it(
    runner: Driver, conn: Conn, clock: Clock
) -> None:
    end_plan(runner, "task-1", items=2)
    runner.run(checkpoints.commit_checkpoint(engine.checkpoint("task-1"), None))
    pass_days(runner, clock, 31)
    name = next(each for each in due(runner) if each.startswith("outcomes") and rows_of(conn, each))
    keep(runner, name)
    assert runner.run(calls.seal_partition(name))
    assert due(runner)[name] == "sealed"
    with pytest.raises(psycopg.Error, match="on its way out"):
        conn.execute(
            "INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at)"
            " SELECT 1, 1, 0, 0, 'completed', min(finished_at) FROM agentos.outcomes"
        )
    runner.run(forks.fork_task("task-1", 1, "fork", "{}", outputs=False, by="me"))
    assert runner.run(calls.drop_partition(name))
    assert engine.status(runner, "fork") == "completed"
    assert runner.run(purge.purge_task("task-1", "me")) == 1


def test_a_partition_that_somebody_reads_is_waited_for_only_so_long(
    runner: Driver, conn: Conn, clock: Clock, database_dsn: str
) -> None:
    pass_days(runner, clock, 31)
    name = next(each for each in due(runner) if each.startswith("outcomes"))
    assert runner.run(calls.seal_partition(name))
    with psycopg.connect(database_dsn) as reader:
        reader.execute(psycopg.sql.SQL("SELECT FROM agentos.{}").format(psycopg.sql.Identifier(name)))
        with pytest.raises(DatabaseBusy):
            runner.run(calls.drop_partition(name))
    assert runner.run(calls.drop_partition(name))


def test_no_partition_of_these_days_can_be_dropped_whatever_is_asked(runner: Driver, conn: Conn) -> None:
    today = f"outcomes_{runner.run(calls.database_time()):%Y%m%d}"
    assert due(runner, -365, -365) == {}
    for name in (today, "outcomes_kept", "outcomes_19990101", 'task_records"; --'):
        with pytest.raises(PartitionRefused):
            runner.run(calls.drop_partition(name))
    assert rows_of(conn, today) == 0


def test_word_of_retired_tasks_and_what_models_cost_go_too_at_last(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "task-1")
    engine.submit(runner, "open", kind="open")
    for name in ("task-1", "open"):
        conn.execute(
            "INSERT INTO agentos.llm_usage (task_id, day, model) VALUES (%s, agentos.clock()::date, 'm')", (name,)
        )
    pass_days(runner, clock, 31)
    retire(runner)
    pass_days(runner, clock, 400)
    now = runner.run(calls.database_time())
    assert runner.run(calls.forget_retired(None, None, 10)) == 0
    assert runner.run(calls.forget_retired(now, now - timedelta(days=400), 10)) == 2
    assert conn.execute("SELECT task_id FROM agentos.llm_usage").fetchall() == [("open",)]
    assert runner.run(calls.retired_task("task-1")) is None


def test_what_would_go_is_told_without_a_write(runner: Driver, conn: Conn, clock: Clock) -> None:
    end(runner, "task-1", "task-2")
    engine.submit(runner, "open", kind="open")
    pass_days(runner, clock, 31)
    found = runner.run(calls.retirable_tasks(runner.run(calls.database_time()) - timedelta(days=30), 100))
    assert (found.made, found.ended, found.bytes > 0) == (3, 2, True)
    assert engine.count(conn, "task_records") == 3


def test_a_round_that_leaves_something_is_found(runner: Driver, clock: Clock) -> None:
    runner.run(workers.lead("coordinator", 1, 5 * DAY))
    runner.run(calls.note_retention(done=True, blocked={"outcomes_20200101": "pid 7 reads it"}))
    assert {f.finding: f.data for f in runner.run(timeline.findings())}["partition_blocked"] == {
        "partition": "outcomes_20200101", "reason": "pid 7 reads it",
    }  # fmt: skip
    clock.advance(3 * DAY)
    runner.run(calls.note_retention(done=False, blocked={}))
    assert {f.finding for f in runner.run(timeline.findings())} >= {"retention_behind"}


def failed_long_ago(runner: Driver, clock: Clock, *task_ids: str) -> datetime:
    """These tasks have failed 31 days ago; returns what was 30 days ago."""
    worker = engine.register(runner)
    for task_id in task_ids:
        engine.submit(runner, task_id)
        (item,) = worker.claim()
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    pass_days(runner, clock, 31)
    return runner.run(calls.database_time()) - timedelta(days=30)


def test_a_retry_and_a_retirement_at_once_are_one_after_the_other(runner: Driver, conn: Conn, clock: Clock) -> None:
    """Whoever is first: the other one finds a task that has gone, or one that lives."""
    before = failed_long_ago(runner, clock, "task-0", "task-1")
    retrying, retiring = runner.session(), runner.session()
    retrying.begin()
    retrying.run(tasks.retry_task("task-0"))
    retiring.begin()
    assert retiring.run(calls.retire_slice(None, None, before, ("tasks",), 10)).count == 1, "nobody is waited for"
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(retrying.run, tasks.retry_task("task-1"))
        engine.wait_until_blocked(conn, retrying.pid)
        retiring.commit()
        with pytest.raises(TaskRetired):
            late.result()
    retrying.rollback()
    assert retire(runner) == 1


def test_a_task_that_lives_again_before_its_head_is_locked_is_not_retired(
    runner: Driver, conn: Conn, clock: Clock
) -> None:
    """It had ended when it was looked for, and what was seen then decides nothing."""
    before = failed_long_ago(runner, clock, "task-1")
    retrying, retiring = runner.session(), runner.session()
    retrying.begin()
    retrying.execute("INSERT INTO agentos.task_heads (task_id) VALUES ('task-1')")
    retrying.run(tasks.retry_task("task-1"))
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(retiring.run, calls.retire_slice(None, None, before, ("tasks",), 10))
        engine.wait_until_blocked(conn, retiring.pid)
        retrying.commit()
        assert found.result().count == 0
    assert retire(runner) == 0
    assert engine.place(runner) == "ready"


@pytest.mark.parametrize("headed", [False, True])
def test_a_retry_waits_for_the_move_of_the_outcome_that_it_takes_away(
    runner: Driver, conn: Conn, clock: Clock, headed: bool
) -> None:
    worker = engine.register(runner)
    if headed:
        engine.create(runner, "task-1", {"": []})
    else:
        engine.submit(runner)
    (item,) = worker.claim()
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    pass_days(runner, clock, 31)
    (name,) = (each for each in due(runner) if each.startswith("outcomes") and engine.count(conn, each))
    keeping, retrying = runner.session(), runner.session()
    keeping.begin()
    assert keeping.run(calls.keep_outcomes(name, 0, 10)) is None
    with ThreadPoolExecutor(1) as threads:
        retried = threads.submit(retrying.run, tasks.retry_task("task-1"))
        engine.wait_until_blocked(conn, retrying.pid)
        keeping.commit()
        assert retried.result() == 1
    assert engine.place(runner) == "ready"
