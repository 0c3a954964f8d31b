"""Forks in the engine: what goes along, what does not, and that the task they are made of stays as it is."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.drivers import Driver, Psycopg
from tests.store import engine

from agentos.core.identity import quick_tool_identity, tool_identity
from agentos.store.calls import blobs, budgets, checkpoints, forks, items, ledger, purge, rewind, tasks, waits
from agentos.store.calls.ledger import CallIdentity
from agentos.store.errors import ForkRefused, TaskExists, TaskOpen, TaskPurged, UnknownCheckpoint, UnknownTask
from agentos.store.parts import part
from agentos.store.run import Call

RE_EXECUTE = json.dumps({"bash": {"action": "re_execute"}})
TABLES = (
    "task_records", "task_heads", "work_items", "checkpoints", "tool_ledger", "llm_cache", "events", "budgets",
    "signals", "approvals", "blob_refs", "waits", "doubts", "submit_keys", "deadlines",
)  # fmt: skip


@pytest.fixture
def runner(database_dsn: str) -> Iterator[Driver]:
    """One driver is enough: what is tested is SQL; the calls with the other are in the handlers' tests."""
    driver = Psycopg(database_dsn)
    yield driver
    driver.close()


def identity(item: Any, what: str, ordinal: int, *, key: str | None = None, task_id: str = "task-1") -> CallIdentity:
    nth = None if key else 1
    return tool_identity(task_id, item.item_id, "bash", what, key=key, ordinal=ordinal, nth=nth)


def begin(runner: Driver, worker: engine.Worker, item: Any, call: CallIdentity) -> ledger.LedgerReply:
    return runner.run(
        ledger.ledger_begin(call, worker.fence(item), worker.worker_id, on_doubt="ask", produces="[]", expires_s=60)
    )


def record(runner: Driver, worker: engine.Worker, item: Any, call: CallIdentity, *, error: str | None = None) -> None:
    begun = begin(runner, worker, item, call)
    assert begun.verdict == "execute"
    assert begun.call_token
    result = json.dumps({"of": call.arguments})
    runner.run(
        ledger.ledger_finish(
            call.key, begun.call_token, worker.fence(item), worker.worker_id, result=result, exit_code=None, error=error
        )
    )


def commit(runner: Driver, worker: engine.Worker, item: Any, ordinal: int) -> int:
    new = engine.checkpoint(item_id=item.item_id, ordinal=ordinal, snapshot=json.dumps({"done": ordinal}))
    return runner.run(checkpoints.commit_checkpoint(new, worker.fence(item))).sequence_number


def ran(runner: Driver, **options: Any) -> tuple[engine.Worker, Any]:
    """A task of one item: a, checkpoint 1, b, checkpoint 2, c; held."""
    engine.submit(runner, **options)
    worker = engine.register(runner, ttl_s=30)
    (item,) = worker.claim()
    for ordinal, what in enumerate("ab"):
        record(runner, worker, item, identity(item, what, ordinal))
        commit(runner, worker, item, ordinal + 1)
    record(runner, worker, item, identity(item, "c", 2))
    return worker, item


def fork(runner: Driver, seq: int, choices: str = "{}", *, to: str = "fork-1", of: str = "task-1") -> tuple[int, ...]:
    return runner.run(forks.fork_task(of, seq, to, choices, outputs=True, by="alice"))


def everything(conn: psycopg.Connection[Any], task_id: str) -> dict[str, list[Any]]:
    """Every row that names the task, and where its items are."""
    found = {
        table: conn.execute(f"SELECT t.*, t.xmin FROM agentos.{table} t WHERE task_id = %s", (task_id,)).fetchall()  # noqa: S608
        for table in TABLES
    }
    for table in ("lease_ready", "lease_held", "scheduled", "waiting", "outcomes"):
        text = f"SELECT p.* FROM agentos.{table} p JOIN agentos.work_items w USING (item_id) WHERE w.task_id = %s"  # noqa: S608
        found[table] = conn.execute(text, (task_id,)).fetchall()
    return found


@pytest.mark.parametrize("state", ["held", "completed", "failed", "cancelled"])
def test_the_task_it_is_made_of_stays_as_it_is_whether_it_lives_or_has_ended(
    runner: Driver, conn: psycopg.Connection[Any], state: str
) -> None:
    worker, item = ran(runner)
    if state == "completed":
        worker.complete(item)
    elif state == "failed":
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    elif state == "cancelled":
        runner.run(tasks.cancel_task("task-1"))
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True, status="cancelled"))
    before = everything(conn, "task-1")
    (made,) = fork(runner, 1)
    assert everything(conn, "task-1") == before
    assert engine.place(runner, "fork-1") == "ready"
    if state == "held":
        assert worker.complete(item) == frozenset(), "and it goes on"
    (again,) = worker.claim()
    assert (again.item_id, again.task_id, again.attempt) == (made, "fork-1", 2)
    (newest,) = runner.run(checkpoints.checkpoints_before("fork-1", item_id=made))
    assert (newest.sequence_number, newest.snapshot_text) == (1, '{"done": 1}')
    assert commit_at(runner, worker, again, 2) == 2, "numbers go on where the checkpoint is"
    assert worker.complete(again) == frozenset()
    assert engine.status(runner, "fork-1") == "completed"
    assert runner.run(tasks.misplaced_items()) == ()


def commit_at(runner: Driver, worker: engine.Worker, item: Any, ordinal: int) -> int:
    new = engine.checkpoint(item.task_id, item_id=item.item_id, ordinal=ordinal)
    return runner.run(checkpoints.commit_checkpoint(new, worker.fence(item))).sequence_number


def test_what_is_replayed_keeps_its_idempotency_key_and_what_is_executed_again_has_a_new_one(runner: Driver) -> None:
    worker, item = ran(runner)
    record(runner, worker, item, identity(item, "d", 2, key="the-key"))
    worker.complete(item)
    fork(runner, 1)
    fork(runner, 1, RE_EXECUTE, to="fork-2")
    first, second = worker.claim(2)
    for what, ordinal, key in (("a", 0, None), ("b", 1, None), ("c", 2, None), ("d", 2, "the-key")):
        reply = begin(runner, worker, first, identity(first, what, ordinal, key=key, task_id="fork-1"))
        assert (reply.verdict, reply.idempotency_key) == ("finished", identity(item, what, ordinal, key=key).key)
        assert reply.result == {"of": json.dumps(what)}
        call = identity(second, what, ordinal, key=key, task_id="fork-2")
        reply = begin(runner, worker, second, call)
        assert reply.verdict == ("finished" if what == "a" else "execute"), what
        assert what == "a" or reply.idempotency_key == call.key


def test_a_stub_a_failure_and_a_call_in_doubt(runner: Driver) -> None:
    worker, item = ran(runner)
    record(runner, worker, item, identity(item, "broken", 2), error="it broke")
    begin(runner, worker, item, identity(item, "begun", 2))
    told = {(each.call.arguments, each.call.state, each.after) for each in runner.run(forks.fork_calls("task-1", 1))}
    assert told == {
        ("a", "finished", False), ("b", "finished", True), ("c", "finished", True), ("broken", "failed", True),
        ("begun", "begun", True),
    }  # fmt: skip
    fork(runner, 1)
    stub = {"bash": {"action": "stub", "result": {"n": 7}, "exit_code": 3}}
    fork(runner, 1, json.dumps(stub), to="fork-2")
    other = engine.register(runner, ttl_s=30)
    first, second = other.claim(2)
    reply = begin(runner, other, first, identity(first, "begun", 2, task_id="fork-1"))
    assert (reply.verdict, reply.idempotency_key) == ("doubt", identity(item, "begun", 2).key)
    reply = begin(runner, other, first, identity(first, "broken", 2, task_id="fork-1"))
    assert (reply.verdict, reply.executions) == ("execute", 1)
    reply = begin(runner, other, second, identity(second, "c", 2, task_id="fork-2"))
    assert (reply.verdict, reply.result, reply.exit_code) == ("finished", {"n": 7}, 3)
    assert begin(runner, worker, item, identity(item, "begun", 2)).verdict == "running", "of the old one still"


def test_items_that_completed_before_are_completed_and_those_behind_wait_again(runner: Driver) -> None:
    keys = engine.create(runner, "task-1", {"a": [], "b": ["a"], "c": ["b"]})
    worker = engine.register(runner, ttl_s=30)
    (a,) = worker.claim()
    worker.complete(a, result='"of a"')
    (b,) = worker.claim()
    commit(runner, worker, b, 1)
    worker.complete(b)
    made = fork(runner, 1)
    assert engine.places(runner, "task-1") == {"a": "completed", "b": "completed", "c": "ready"}
    assert engine.places(runner, "fork-1") == {"a": "completed", "b": "ready", "c": "waiting"}
    assert len(made) == 2
    assert not set(made) & set(keys.values())
    for _ in range(3):
        worker.complete(*worker.claim())
    assert engine.status(runner, "fork-1") == engine.status(runner, "task-1") == "completed"
    assert runner.run(tasks.task_items("fork-1"))[0].result == "of a"
    assert runner.run(tasks.misplaced_items()) == ()


def test_a_fork_can_be_rewound_forked_and_purged_by_itself(runner: Driver) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    fork(runner, 2)
    worker.complete(*worker.claim())
    assert len(fork(runner, 1, of="fork-1", to="fork-2")) == 1
    (again,) = worker.claim()
    reply = begin(runner, worker, again, identity(again, "b", 1, task_id="fork-2"))
    assert (reply.verdict, reply.idempotency_key) == ("finished", identity(item, "b", 1).key)
    worker.complete(again)
    runner.run(rewind.rewind_task("fork-2", 0, "{}", "alice"))
    worker.complete(*worker.claim())
    assert runner.run(purge.purge_task("fork-1", "alice")) == 1
    assert engine.status(runner) == "completed"
    assert len(runner.run(checkpoints.checkpoints_before("task-1"))) == 2
    with pytest.raises(TaskPurged):
        fork(runner, 1, of="fork-1", to="fork-3")


def test_limits_go_along_and_what_was_spent_deadline_and_pause_do_not(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    worker, item = ran(runner)
    runner.run(budgets.set_budget("task-1", budgets.Limits(calls=3, wall_s=100.0), "fail"))
    conn.execute("UPDATE agentos.budgets SET spent_calls = 2, spent_wall_s = 50")
    conn.execute("SELECT agentos.set_deadline(ARRAY['task-1'], 3600)")
    runner.run(tasks.pause_task("task-1"))
    fork(runner, 1)
    limits = {line.name: (line.most, line.spent) for line in runner.run(budgets.budget_of("fork-1"))}
    assert {name: (int(most), int(spent)) for name, (most, spent) in limits.items()} == {
        "max_calls": (3, 0), "max_wall_s": (100, 0),
    }  # fmt: skip
    assert engine.count(conn, "deadlines") == 1
    assert [each.task_id for each in worker.claim(5)] == ["fork-1"]
    assert engine.status(runner, "fork-1") == "running"
    assert engine.place(runner, "task-1") == "held"
    assert item.item_id


def test_parts_of_a_snapshot_stay_for_the_fork_when_the_old_task_is_purged(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=30)
    (item,) = worker.claim()
    large = part(json.dumps(["x" * 100_000, "y" * 100_000]))
    assert large is not None
    new = engine.checkpoint(item_id=item.item_id, ordinal=1, snapshot=large.text)
    names = sorted(large.parts)
    runner.run(checkpoints.commit_parted(new, worker.fence(item), worker.worker_id, names, large.parts))
    worker.complete(item)
    fork(runner, 1)
    runner.run(purge.purge_task("task-1", "alice"))
    runner.run(blobs.collect_blobs(0.0))
    assert set(runner.run(blobs.get_blobs(names))) == set(names)


def test_a_fork_waits_for_a_purge_that_is_under_way(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    engine.submit(runner)  # without a head: its record is what both lock
    worker = engine.register(runner, ttl_s=30)
    worker.complete(*worker.claim())
    session = runner.session()
    session.begin()
    session.run(purge.purge_task("task-1", "alice"))
    other = runner.session()
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(other.run, forks.fork_task("task-1", 0, "fork-1", "{}", outputs=True, by="alice"))
        engine.wait_until_blocked(conn, other.pid)
        session.commit()
        with pytest.raises(TaskPurged):
            waiting.result(60)


@pytest.mark.parametrize("seq", [7, 2])
def test_only_a_checkpoint_that_counts_can_be_forked_from(runner: Driver, seq: int) -> None:
    worker, item = ran(runner)
    worker.complete(item)
    runner.run(rewind.rewind_task("task-1", 1, "{}", "alice"))
    with pytest.raises(UnknownCheckpoint, match=r"0 is the beginning|or 0 for the beginning"):
        fork(runner, seq)
    with pytest.raises(UnknownTask):
        fork(runner, 0, of="nobody")


def test_an_id_that_is_taken_makes_no_second_fork(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    ran(runner)
    fork(runner, 1)
    with pytest.raises(TaskExists, match="fork-1"):
        fork(runner, 1)
    assert engine.count(conn, "task_records") == 2


def test_a_record_that_would_not_be_found_again_refuses_the_fork(runner: Driver) -> None:
    worker, item = ran(runner)
    record(runner, worker, item, engine.tool_call("a key of somebody's own", item_id=item.item_id))
    with pytest.raises(ForkRefused, match="agentos rewind task-1"):
        fork(runner, 1)
    assert item


def spawned(runner: Driver, worker: engine.Worker, item: Any, ordinal: int) -> str:
    call = tool_identity("task-1", item.item_id, "@spawn", {"kind": "shell"}, key=None, ordinal=ordinal, nth=1)
    one = json.dumps([{"key": "main", "kind": "shell", "payload": {}, "max_attempts": 1}])
    return runner.run(
        waits.spawn(
            call, worker.fence(item), child=f"child-{ordinal}", title="c", queue="default", priority=0, items=one
        )
    )


def test_a_child_of_before_that_lives_refuses_the_fork_and_one_of_after_is_made_anew(runner: Driver) -> None:
    worker, item = ran(runner)
    spawned(runner, worker, item, 2)
    commit(runner, worker, item, 3)
    with pytest.raises(TaskOpen, match="its child task child-2 of before"):
        fork(runner, 3)
    with pytest.raises(TaskOpen, match="child-2"):
        runner.run(forks.require_forkable("task-1", 3))
    fork(runner, 2)
    (child,) = worker.claim()
    assert child.task_id == "child-2"
    worker.complete(child)
    fork(runner, 3, to="fork-2")
    spawns = runner.run(
        Call(
            "SELECT task_id FROM agentos.tool_ledger WHERE tool_name = '@spawn'",
            (),
            lambda rows: [r["task_id"] for r in rows],
        )
    )
    assert sorted(spawns) == ["fork-2", "task-1"], "fork-1 makes its own"
    assert runner.run(forks.outputs_of("fork-2")) == "task-1"


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    item=st.integers(1, 2**62),
    arguments=VALUES,
    tool=TEXTS,
    key=TEXTS,
    ordinal=st.integers(0, 9),
    nth=st.integers(1, 9),
)
def test_the_engine_makes_the_same_key_of_a_call_as_the_library(
    conn: psycopg.Connection[Any], item: int, arguments: Any, tool: str, key: str, ordinal: int, nth: int
) -> None:
    for call in (
        tool_identity("t", item, tool, arguments, key=key, ordinal=ordinal, nth=None),
        tool_identity("t", item, tool, arguments, key=None, ordinal=ordinal, nth=nth),
        quick_tool_identity(tool, arguments, key),
    ):
        row = conn.execute(
            """INSERT INTO agentos.tool_ledger AS l (task_id, item_id, tool_name, call_key, ordinal, nth, arguments,
                      ledger_key, state, on_doubt, idempotency_key, produces, call_token, begun_at, expires_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, gen_random_uuid(), 'begun', 'ask', '', '[]', gen_random_uuid(),
                      now(), now()) RETURNING agentos.call_key(l, l.task_id, l.item_id)""",
            (call.task_id, item, tool, call.call_key, ordinal, call.nth, call.arguments),
        ).fetchone()
        assert row == (call.key,), call


def test_a_call_of_the_blocking_ledger_goes_along_by_the_new_tasks_id(runner: Driver) -> None:
    worker, item = ran(runner)
    record(runner, worker, item, quick_tool_identity("bash", "date", "task-1")._replace(item_id=item.item_id))
    worker.complete(item)
    fork(runner, 2)
    (again,) = worker.claim()
    call = quick_tool_identity("bash", "date", "fork-1")._replace(item_id=again.item_id)
    assert begin(runner, worker, again, call).verdict == "finished"
