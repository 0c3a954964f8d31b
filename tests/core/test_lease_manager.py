"""LeaseManager: fences, expiry by the database's clock, the caller's own transactions."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from agentos.core.idempotency import ToolLedger
from agentos.core.lease import current_lease
from agentos.core.task import TaskManager
from agentos.core.worker_pool import LeaseManager, WorkItemLease
from agentos.store.calls import tasks, workers
from agentos.store.connect import Database, connect
from agentos.store.errors import InvalidInput, InvalidValue, LeaseLost, WrongIsolation
from agentos.testing.clock import Clock

Connect = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def connections(database_dsn: str) -> Iterator[Connect]:
    opened: list[psycopg.Connection[Any]] = []

    def make(*, autocommit: bool = True) -> psycopg.Connection[Any]:
        conn = connect(database_dsn)
        conn.autocommit = autocommit
        opened.append(conn)
        return conn

    yield make
    for conn in opened:
        conn.close()
    current_lease.set(None)


@pytest.fixture
def manager(connections: Connect) -> LeaseManager:
    return LeaseManager(connections(), worker_id="worker-123")


def create(task_id: str = "task-1", kind: str = "shell", **more: Any) -> None:
    TaskManager().create_task("a task", task_id=task_id, kind=kind, payload={"command": "make"}, **more)


def acquired(manager: LeaseManager, seconds: float = 60) -> WorkItemLease:
    lease = manager.acquire_lease(seconds)
    assert lease is not None
    return lease


def where(db: Database, task_id: str = "task-1") -> str:
    (row,) = db.run(tasks.task_items(task_id))
    return row.status or row.place


def test_nothing_to_do_is_none(manager: LeaseManager) -> None:
    assert manager.acquire_lease() is None


def test_a_lease_says_what_to_do_and_until_when(manager: LeaseManager) -> None:
    create()
    lease = acquired(manager, 90)
    assert (lease.task_id, lease.kind, lease.payload, lease.attempt) == ("task-1", "shell", {"command": "make"}, 1)
    assert (lease.expires_at - lease.acquired_at).total_seconds() == 90
    assert manager.acquire_lease() is None


def test_only_the_kinds_asked_for_are_taken(connections: Connect) -> None:
    create("task-1", "other")
    create("task-2", "mine")
    manager = LeaseManager(connections(), kinds=["mine", "also"])
    assert acquired(manager).task_id == "task-2"
    assert manager.acquire_lease() is None


def test_success_completes_with_the_result(manager: LeaseManager, db: Database) -> None:
    create()
    assert manager.release_lease(acquired(manager).work_item_id, success=True, result={"n": 1}) == "completed"
    progress = db.run(tasks.task_progress("task-1"))
    assert (progress.status, progress.result) == ("completed", {"n": 1})


def test_failure_is_charged_and_tried_again_until_the_last_attempt(
    manager: LeaseManager, db: Database, clock: Clock
) -> None:
    create(max_attempts=2)
    assert manager.release_lease(acquired(manager).work_item_id, success=False, error="no\x00 disk") == "scheduled"
    clock.advance(5)
    db.run(workers.promote())
    lease = acquired(manager)
    assert (lease.attempt, lease.failures) == (2, 1)
    assert manager.release_lease(lease.work_item_id, success=False, error="no disk") == "failed"
    task = TaskManager().get_task("task-1")
    assert (task.status, task.reason) == ("failed", "no disk")


def test_handing_back_charges_nothing(manager: LeaseManager) -> None:
    create()
    manager.hand_back(acquired(manager).work_item_id)
    again = acquired(manager)
    assert (again.attempt, again.failures, again.crashes) == (2, 0, 0)


def test_a_lease_ends_by_its_own_duration(
    manager: LeaseManager, connections: Connect, db: Database, clock: Clock
) -> None:
    create()
    lease = acquired(manager, 10)
    clock.advance(9)
    db.run(workers.reclaim())
    assert where(db) == "held"
    clock.advance(2)
    for end in (
        lambda: manager.renew_lease(lease.work_item_id),
        lambda: manager.release_lease(lease.work_item_id, success=True),
    ):
        with pytest.raises(LeaseLost):
            end()
    assert [each.crashes for each in db.run(workers.reclaim())] == [1]
    other = LeaseManager(connections(), worker_id="worker-123")
    taken = acquired(other)
    assert (taken.attempt, taken.crashes) == (2, 1)
    assert taken.fence.worker_id != lease.fence.worker_id


def test_renewing_puts_the_end_off(manager: LeaseManager, db: Database, clock: Clock) -> None:
    create()
    lease = acquired(manager, 10)
    clock.advance(8)
    until = manager.renew_lease(lease.work_item_id, 30)
    assert (until - lease.expires_at).total_seconds() == pytest.approx(28, abs=2)
    clock.advance(25)
    db.run(workers.reclaim())
    assert manager.release_lease(lease.work_item_id, success=True) == "completed"


def test_a_fence_that_does_not_match_is_refused(manager: LeaseManager, connections: Connect) -> None:
    create()
    lease = acquired(manager)
    other = LeaseManager(connections(), worker_id="worker-123")
    for call in (
        lambda: other.release_lease(lease.work_item_id, success=True),
        lambda: other.renew_lease(lease.work_item_id),
        lambda: other.hand_back(lease.work_item_id),
    ):
        with pytest.raises(LeaseLost):
            call()
    assert manager.release_lease(lease.work_item_id, success=True) == "completed"
    with pytest.raises(LeaseLost):
        manager.release_lease(lease.work_item_id, success=True)


def test_a_stale_token_writes_nothing(manager: LeaseManager, db: Database, conn: psycopg.Connection[Any]) -> None:
    create()
    lease = acquired(manager)
    conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")
    with pytest.raises(LeaseLost):
        manager.release_lease(lease.work_item_id, success=False, error="x")
    assert where(db) == "held"


def test_a_manager_that_was_idle_for_long_goes_on_under_a_new_identity(
    manager: LeaseManager, db: Database, clock: Clock
) -> None:
    create()
    first = acquired(manager, 10)
    manager.release_lease(first.work_item_id, success=True)
    clock.advance(60)
    db.run(workers.reclaim())
    create("task-2")
    second = acquired(manager, 10)
    assert second.fence.worker_id != first.fence.worker_id
    assert manager.release_lease(second.work_item_id, success=True) == "completed"


def test_a_result_that_cannot_be_stored_is_refused_and_the_lease_goes_on(manager: LeaseManager) -> None:
    create()
    lease = acquired(manager)
    with pytest.raises(InvalidValue):
        manager.release_lease(lease.work_item_id, success=True, result=float("nan"))
    assert manager.release_lease(lease.work_item_id, success=True) == "completed"


def test_an_item_of_a_cancelled_task_is_not_handed_out(manager: LeaseManager) -> None:
    create()
    create("task-2")
    TaskManager().cancel_task("task-1")
    assert acquired(manager).task_id == "task-2"
    assert manager.acquire_lease() is None
    assert TaskManager().get_task("task-1").status == "cancelled"


def test_closing_lets_the_rest_be_reclaimed_at_once(manager: LeaseManager, db: Database) -> None:
    create()
    with manager:
        acquired(manager, 3600)
    assert [each.task_id for each in db.run(workers.reclaim())] == ["task-1"]


def test_work_between_acquire_and_release_is_under_the_lease(
    manager: LeaseManager, conn: psycopg.Connection[Any]
) -> None:
    create()
    lease = acquired(manager)
    ToolLedger().execute_or_replay("bash", "make", "task-1", lambda: {"exit_code": 0})
    assert conn.execute("SELECT item_id, worker_id FROM agentos.tool_ledger").fetchone() == (
        lease.work_item_id, lease.fence.worker_id,
    )  # fmt: skip
    manager.release_lease(lease.work_item_id, success=True)
    assert current_lease.get() is None


def test_a_tool_that_outlives_its_lease_is_not_recorded_as_done(
    manager: LeaseManager, conn: psycopg.Connection[Any]
) -> None:
    create()
    acquired(manager)

    def tool() -> dict[str, int]:
        conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")
        return {"exit_code": 0}

    with pytest.raises(LeaseLost):
        ToolLedger().execute_or_replay("bash", "make", "task-1", tool)
    assert conn.execute("SELECT state FROM agentos.tool_ledger").fetchone() == ("begun",)


def test_of_several_leases_each_can_be_worked_under(manager: LeaseManager, conn: psycopg.Connection[Any]) -> None:
    create("task-1")
    create("task-2")
    leases = {lease.task_id: lease for lease in (acquired(manager), acquired(manager))}
    for lease in leases.values():
        with manager.holding(lease.work_item_id):
            ToolLedger().execute_or_replay("bash", "make", lease.task_id, lambda: {"exit_code": 0})
    rows = conn.execute("SELECT task_id, item_id FROM agentos.tool_ledger").fetchall()
    assert dict(rows) == {task_id: lease.work_item_id for task_id, lease in leases.items()}


# -- the caller's transaction --------------------------------------------------------------------------------------


def test_a_lease_taken_in_a_transaction_that_is_rolled_back_was_never_taken(connections: Connect, db: Database) -> None:
    create()
    own = connections()
    manager = LeaseManager(own)
    with own.transaction(force_rollback=True):
        acquired(manager)
    assert where(db) == "ready"


def test_the_end_of_an_item_commits_with_the_callers_own_writes(
    connections: Connect, db: Database, conn: psycopg.Connection[Any]
) -> None:
    create()
    conn.execute("CREATE TABLE mine (n integer)")
    own = connections(autocommit=False)
    manager = LeaseManager(own)
    lease = acquired(manager)  # outside a transaction of the caller's: counts at once
    assert where(db) == "held"
    own.execute("INSERT INTO mine VALUES (1)")
    manager.release_lease(lease.work_item_id, success=True)
    assert where(db) == "held"
    own.commit()
    assert where(db) == "completed"
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (1,)


def test_a_refusal_does_not_end_the_callers_transaction(connections: Connect, conn: psycopg.Connection[Any]) -> None:
    create()
    own = connections()
    manager = LeaseManager(own)
    lease = acquired(manager)
    conn.execute("CREATE TABLE mine (n integer)")
    conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")
    with own.transaction():
        own.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(LeaseLost):
            manager.release_lease(lease.work_item_id, success=True)
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (1,)


def test_an_isolation_level_that_does_not_fence_is_refused(connections: Connect) -> None:
    create()
    own = connections()
    own.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    with pytest.raises(WrongIsolation):
        LeaseManager(own).acquire_lease()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 10**9, True, "60"])
def test_a_duration_that_makes_no_sense_is_refused(manager: LeaseManager, seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="lease_duration_seconds"):
        manager.acquire_lease(seconds)


@pytest.mark.parametrize("wrong", [{"kinds": []}, {"kinds": "shell"}, {"worker_id": " "}])
def test_a_manager_that_could_do_nothing_is_refused(connections: Connect, wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        LeaseManager(connections(), **wrong)
