"""Arranging the engine in tests: workers, tasks, claims; and waiting for a session to block on another."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import psycopg

from agentos.store.calls import items, tasks, waits, workers
from agentos.store.calls.checkpoints import NewCheckpoint
from agentos.store.calls.items import ClaimedItem, Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.calls.waits import WaitReply
from agentos.store.run import Call

T = TypeVar("T")
ERROR = '{"type":"ValueError","message":"it broke"}'


class Runs(Protocol):
    """A driver or one of its sessions."""

    def run(self, call: Call[T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker row."""

    db: Runs
    worker_id: int
    lanes: tuple[int, ...]
    epoch: int = 0

    def claim(self, limit: int = 1, *, on: Runs | None = None, solo: Sequence[int] = ()) -> tuple[ClaimedItem, ...]:
        """Claim from the worker's lanes."""
        return (on or self.db).run(items.claim(self.worker_id, self.epoch, self.lanes, limit, solo)).items

    def claim_solo(self, limit: int = 1) -> tuple[ClaimedItem, ...]:
        """Claim from the solo twins of the worker's lanes."""
        return self.db.run(items.claim(self.worker_id, self.epoch, [-n for n in self.lanes], limit)).items

    def fence(self, item: ClaimedItem) -> Fence:
        return item.fence(self.worker_id)

    def complete(self, *held: ClaimedItem, result: str = "null", on: Runs | None = None) -> frozenset[int]:
        """Complete these; returns the ids fenced off."""
        done = [(item.item_id, item.token, result) for item in held]
        return (on or self.db).run(items.complete(self.worker_id, done))


def register(
    db: Runs, *, kinds: Sequence[str] = ("shell",), queues: Sequence[str] = ("default",), ttl_s: float = 15.0,
    role: str = "worker", worker_id: int | None = None,
) -> Worker:  # fmt: skip
    """A living worker that serves these kinds."""
    worker_id = worker_id if worker_id is not None else secrets.randbits(63)
    serves = json.dumps({"queues": list(queues), "kinds": list(kinds), "concurrency": 8})
    db.run(
        workers.register_worker(
            worker_id, label="w", host="test-host", pid=1, process="p", version="0", role=role, ttl_s=ttl_s,
            serves=serves,
        )
    )  # fmt: skip
    return Worker(db, worker_id, db.run(workers.lanes_of(queues, kinds)))


def submit(db: Runs, task_id: str = "task-1", *, kind: str = "shell", **options: Any) -> int:
    """A task of one item."""
    return db.run(tasks.submit(task_id, kind, f"title of {task_id}", "{}", **options))


def create(db: Runs, task_id: str, graph: Mapping[str, Sequence[str]], **options: Any) -> dict[str, int]:
    """A task whose items are the keys of `graph`, each with the keys it depends on. Returns the item ids."""
    plan = [{"key": key, "kind": "shell", "depends_on": list(needs)} for key, needs in graph.items()]
    db.run(tasks.create_task(task_id, f"title of {task_id}", items=json.dumps(plan), **options))
    return ids(db, task_id)


def ids(db: Runs, task_id: str) -> dict[str, int]:
    """Item ids by key."""
    return {row.key or "": row.item_id for row in db.run(tasks.task_items(task_id))}


def places(db: Runs, task_id: str = "task-1") -> dict[str, str]:
    """Where each item of the task is, by key ("" for the one of a one-item task); of ended ones the outcome."""
    return {row.key or "": row.status or row.place for row in db.run(tasks.task_items(task_id))}


def place(db: Runs, task_id: str = "task-1") -> str:
    """Where the only item of the task is."""
    return next(iter(places(db, task_id).values()))


def status(db: Runs, task_id: str = "task-1") -> str:
    task = db.run(tasks.get_task(task_id))
    assert task is not None
    return task.status


def crash(db: Runs, worker: Worker) -> tuple[workers.Reclaimed, ...]:
    """The worker's process is gone: declare it dead and reclaim."""
    db.run(workers.declare_dead([worker.worker_id]))
    return db.run(workers.reclaim())


def checkpoint(
    task_id: str = "task-1", item_id: int | None = None, *, snapshot: str = "{}", **changes: Any
) -> NewCheckpoint:
    """A checkpoint that can be committed."""
    given: dict[str, Any] = {
        "task_id": task_id, "item_id": item_id, "checkpoint_type": "iteration_end", "snapshot": snapshot,
        "snapshot_sha256": sha256(snapshot.encode(errors="replace")).hexdigest(), "evidence": "[]", "ordinal": None,
        "host": "h", "workspace": "/", "step_id": uuid4(),
    }  # fmt: skip
    return NewCheckpoint(**(given | changes))


def tool_call(key: str = "call-1", task_id: str = "task-1", item_id: int | None = None, **changes: Any) -> CallIdentity:
    """The identity of a tool call."""
    given: dict[str, Any] = {
        "key": key, "task_id": task_id, "item_id": item_id, "tool_name": "bash", "call_key": None, "ordinal": 0,
        "nth": 1, "arguments": '"ls"',
    }  # fmt: skip
    return CallIdentity(**(given | changes))


def ask(fence: Fence, question: str, shown: str, task_id: str = "task-1") -> Call[WaitReply]:
    """A question to a person, each time another one."""
    call = tool_call(uuid4().hex, task_id, fence.item_id, tool_name="@approval")
    return waits.ask(call, fence, question, shown, sha256(shown.encode(errors="replace")).hexdigest())


def approval_of(item_id: int) -> Call[bool | None]:
    """The answer to what the item asked last."""
    return Call(
        "SELECT approved FROM agentos.approvals WHERE item_id = $1::bigint ORDER BY asked_at DESC LIMIT 1",
        (item_id,),
        lambda rows: rows[0]["approved"] if rows else None,
    )


def stale(fence: Fence, **changes: Any) -> Fence:
    """The fence with something wrong."""
    values: dict[str, Any] = {"item_id": fence.item_id, "worker_id": fence.worker_id, "token": fence.token}
    return Fence(**(values | changes))


def other_token() -> UUID:
    return uuid4()


def wait_until_blocked(conn: psycopg.Connection[Any], pid: int, timeout_s: float = 60.0) -> None:
    """Wait until the session `pid` (0: any of the test's) waits for a lock of another one."""
    blocked = (
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE datname = current_database()"
        " AND (a.pid = %(pid)s OR %(pid)s = 0 AND application_name = 'test-session')"
        " AND pg_blocking_pids(a.pid) <> '{}')"
    )
    _eventually(lambda: conn.execute(blocked, {"pid": pid}).fetchone() == (True,), timeout_s)


def _eventually(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def count(conn: psycopg.Connection[Any], table: str) -> int:
    """Rows of one of the engine's tables."""
    row = conn.execute(f"SELECT count(*) FROM agentos.{table}").fetchone()  # noqa: S608  a name from the tests
    assert row is not None
    return int(row[0])


def sessions_of(process: str) -> Call[tuple[int, ...]]:
    """The pids of a process's sessions, whatever they are called beside its name."""
    return Call(
        "SELECT pid FROM pg_stat_activity WHERE agentos.process_of(application_name) = $1::text",
        (process,), lambda rows: tuple(row["pid"] for row in rows),
    )  # fmt: skip
