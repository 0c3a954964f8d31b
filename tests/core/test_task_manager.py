"""TaskManager: what is created, what is refused as a whole."""

from typing import Any

import psycopg
import pytest

from agentos.core.plan import parse_plan
from agentos.core.task import TaskManager
from agentos.store.calls import tasks
from agentos.store.canonical import MAX_DEPTH, canonical_text
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, InvalidPlan, InvalidValue, TaskExists, UnknownTask


@pytest.fixture
def manager(database_dsn: str) -> TaskManager:
    return TaskManager()


def test_a_title_alone_is_a_task_with_nothing_to_claim(manager: TaskManager, db: Database) -> None:
    task = manager.create_task(title="Recoverable Task")
    assert (task.status, task.title, task.kind) == ("created", "Recoverable Task", None)
    assert manager.get_task(task.task_id) == task
    assert db.run(tasks.task_items(task.task_id)) == ()


def test_a_kind_makes_a_task_of_one_item(manager: TaskManager, db: Database) -> None:
    manager.create_task("t", task_id="task-1", kind="any", payload={"n": 2**60}, max_attempts=3, timeout_s=9)
    (item,) = db.run(tasks.task_items("task-1"))
    assert (item.kind, item.place, item.payload, item.max_attempts) == ("any", "ready", {"n": 2**60}, 3)
    assert db.run(tasks.task_progress("task-1")).single is True


def test_items_make_a_task_of_many(manager: TaskManager, db: Database) -> None:
    items: list[dict[str, Any]] = [
        {"kind": "shell", "payload": {"command": "a"}},
        {"key": "b", "kind": "llm", "depends_on": ["item-1"], "max_attempts": 2, "timeout_s": 5, "queue": "slow"},
    ]
    manager.create_task("t", task_id="task-1", items=items, payload={"of": "the task"}, kind="label")
    rows = db.run(tasks.task_items("task-1"))
    assert [(row.key, row.kind, row.queue, row.place) for row in rows] == [
        ("item-1", "shell", "default", "ready"), ("b", "llm", "slow", "waiting"),
    ]  # fmt: skip
    assert manager.get_task("task-1").payload == {"of": "the task"}


def test_a_plan_is_taken_as_it_is(manager: TaskManager, db: Database) -> None:
    plan = parse_plan("title: t\nitems:\n- {key: a, command: make}\n- {key: b, prompt: why, depends_on: [a]}\n")
    manager.create_task(plan.title, task_id="task-1", items=plan)
    assert [row.kind for row in db.run(tasks.task_items("task-1"))] == ["shell", "llm"]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([{}], "items[0]: has no kind"),
        (["make"], "items[0]: is of type str"),
        ([{"kind": "a", "comand": 1}], "no field 'comand'"),
        ([{"kind": "a", "depends_on": ["b"]}], 'no item has the key "b"'),
        ([{"kind": "a", "key": "x", "depends_on": ["x"]}], "is the item itself"),
        ([{"kind": "a", "depends_on": ["item-2"]}, {"kind": "a", "depends_on": ["item-1"]}], "each other"),
        ([{"kind": "a", "key": "x"}, {"kind": "a", "key": "x"}], '"x" is the key of'),
        ([{"kind": "a", "max_attempts": 0}], "items[0].max_attempts: must be a whole number"),
        ([{"kind": "a", "timeout_s": -1}], "items[0].timeout_s: must be a number"),
        ([{"kind": 5}], "items[0].kind: must be a text"),
        ([{"kind": "a", "key": 5}], "items[0].key: must be a text"),
        ([{"kind": "a", "depends_on": "b"}], "items[0].depends_on: must be a list"),
    ],
)
def test_items_that_do_not_fit_are_refused_as_a_whole(
    manager: TaskManager, conn: psycopg.Connection[Any], items: list[Any], said: str
) -> None:
    with pytest.raises(InvalidPlan) as refused:
        manager.create_task("t", items=items)
    assert said in str(refused.value)
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)


@pytest.mark.parametrize(
    "wrong",
    [{"title": ""}, {"title": 5}, {"title": "t\x00"}, {"task_id": ""}, {"task_id": "x" * 256}, {"max_attempts": 0},
     {"timeout_s": 0}, {"kind": " "}],
)  # fmt: skip
def test_what_cannot_name_a_task_is_refused(manager: TaskManager, wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        manager.create_task(**{"title": "t", **wrong})


def test_a_payload_that_json_cannot_hold_is_refused(manager: TaskManager) -> None:
    for more in ({"kind": "any", "payload": {"a": float("nan")}}, {"items": [{"kind": "a", "payload": {"b": b""}}]}):
        with pytest.raises(InvalidValue):
            manager.create_task("t", **more)


def test_an_id_is_taken_once(manager: TaskManager) -> None:
    manager.create_task("t", task_id="task-1")
    with pytest.raises(TaskExists, match="task-1"):
        manager.create_task("t", task_id="task-1", kind="any")


async def test_a_manager_can_be_awaited(manager: TaskManager) -> None:
    manager.create_task("one", task_id="task-1")
    assert await manager.acancel_task("task-1", "no tea") == "cancelled"
    (task,) = await manager.alist_tasks(status="cancelled")
    assert (task.task_id, task.reason) == ("task-1", "no tea")
    assert await manager.aget_task("task-1") == task
    assert await manager.alist_tasks(status="running") == []


def test_tasks_are_listed_newest_first_and_cancelled(manager: TaskManager) -> None:
    for n in range(3):
        manager.create_task("t", task_id=f"task-{n}", kind="any")
    assert manager.cancel_task("task-1") == "cancelled"
    assert [task.task_id for task in manager.list_tasks(limit=2)] == ["task-2", "task-1"]
    assert [task.task_id for task in manager.list_tasks(status="cancelled")] == ["task-1"]
    with pytest.raises(UnknownTask, match="create_task"):
        manager.get_task("task-9")


def test_thousands_of_items_are_created_in_one_transaction_and_in_their_order(
    manager: TaskManager, db: Database, conn: psycopg.Connection[Any]
) -> None:
    items: list[dict[str, Any]] = [{"kind": "shell", "payload": {"n": n}} for n in range(2500)]
    with pytest.raises(InvalidValue, match=r"items\[2400\]"):
        manager.create_task("t", items=[*items[:2400], {"kind": "shell", "payload": {"n": float("nan")}}])
    manager.create_task("t", task_id="task-1", items=[*items, {"kind": "llm", "queue": "gpu", "max_attempts": 2}])
    with pytest.raises(TaskExists):
        manager.create_task("t", task_id="task-1", items=items)
    rows = db.run(tasks.task_items("task-1"))
    assert [row.payload for row in rows] == [*({"n": n} for n in range(2500)), {}]
    assert [(row.key, row.seq, row.place) for row in rows] == [(f"item-{n}", n, "ready") for n in range(1, 2502)]
    assert (rows[-1].kind, rows[-1].queue, rows[-1].max_attempts) == ("llm", "gpu", 2)
    assert db.run(tasks.task_progress("task-1")).open == 2501


def test_among_thousands_each_item_is_judged_as_it_would_be_alone(
    manager: TaskManager, db: Database, conn: psycopg.Connection[Any]
) -> None:
    items: list[dict[str, Any]] = [{"kind": "shell"} for _ in range(1500)]
    sealed = {"$sealed": {"by": "me", "data": ""}}
    with pytest.raises(InvalidValue, match="sealed"):
        manager.create_task("t", items=[*items, {"kind": "shell", "payload": sealed}])
    deepest: Any = 1
    for _ in range(MAX_DEPTH):
        deepest = [deepest]
    with pytest.raises(InvalidValue, match=r"items\[1500\]"):
        manager.create_task("t", items=[*items, {"kind": "shell", "payload": [deepest]}])
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)
    payloads = [deepest, {"n": sealed}, "ü"]
    manager.create_task("t", task_id="t", items=[*items, *({"kind": "shell", "payload": each} for each in payloads)])
    rows = conn.execute("SELECT payload::text FROM agentos.work_items WHERE seq > 1500 ORDER BY seq").fetchall()
    assert [text for (text,) in rows] == [canonical_text(each) for each in payloads]
