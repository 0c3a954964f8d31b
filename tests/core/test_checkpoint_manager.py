"""CheckpointManager: gapless, verified again, fenced; against a real database."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.core.lossy import Lossy

from agentos.core.checkpoints import CheckpointManager, Evidence, EvidencePack, EvidenceType
from agentos.core.flows.checkpoints import newest_holding
from agentos.core.idempotency import ToolLedger
from agentos.core.lease import current_lease
from agentos.core.scope import CHECKPOINT_TYPES
from agentos.core.task import TaskManager
from agentos.core.verification import verifier
from agentos.core.worker_pool import LeaseManager, WorkItemLease
from agentos.store.connect import Database
from agentos.store.errors import (
    CheckpointInvalid,
    InvalidCheckpointType,
    InvalidValue,
    LeaseLost,
    TaskHeld,
    UnknownCheckpoint,
    UnknownStep,
    UnknownTask,
    UnknownWorkItem,
    ValueTooLarge,
)
from agentos.store.run import drive


@pytest.fixture
def manager(database_dsn: str) -> CheckpointManager:
    TaskManager().create_task("a task", task_id="task-123")
    return CheckpointManager()


def commit(manager: CheckpointManager, snapshot: Any, *evidence: Evidence, **more: Any) -> Any:
    return manager.commit_step(manager.begin_step("task-123", "iteration_end", snapshot, **more), evidence)


def there(path: Path) -> Evidence:
    return Evidence(EvidenceType.ARTIFACT_EXISTS, "the artifact", {"path": str(path)})


@pytest.mark.parametrize("checkpoint_type", CHECKPOINT_TYPES)
def test_each_of_the_eight_types_is_taken(manager: CheckpointManager, checkpoint_type: str) -> None:
    step = manager.begin_step("task-123", checkpoint_type, {})
    assert manager.commit_step(step).checkpoint_type == checkpoint_type


def test_another_type_is_refused_and_the_eight_are_named(manager: CheckpointManager) -> None:
    with pytest.raises(InvalidCheckpointType, match="Invalid checkpoint_type") as refused:
        manager.begin_step("task-123", "my_checkpoint", {})
    assert all(each in str(refused.value) for each in CHECKPOINT_TYPES)


def test_a_checkpoint_comes_back_as_it_was_committed(manager: CheckpointManager) -> None:
    snapshot = {"n": 2**70, "list": [1, None, "ü"], "nested": {"a": {}}}
    made = commit(manager, snapshot)
    snapshot["n"] = 0
    assert made.snapshot["n"] == 2**70
    assert manager.get_last_verified_checkpoint("task-123") == made
    assert (made.checkpoint_id, made.task_id, made.work_item_id) == ("task-123#1", "task-123", None)


def test_eight_writers_without_a_lease_leave_no_gap(manager: CheckpointManager) -> None:
    start = threading.Barrier(8)

    def write(writer: int) -> list[int]:
        own = CheckpointManager()
        start.wait(10)
        return [commit(own, {"writer": writer, "n": n}).sequence_number for n in range(10)]

    with ThreadPoolExecutor(8) as pool:
        written = [list(numbers) for numbers in pool.map(write, range(8))]
    assert sorted(number for numbers in written for number in numbers) == list(range(1, 81))
    assert all(numbers == sorted(numbers) for numbers in written)


def test_a_step_is_committed_once(manager: CheckpointManager) -> None:
    step = manager.begin_step("task-123", "manual_checkpoint", {})
    manager.commit_step(step)
    for wrong, who in ((step, manager), (manager.begin_step("task-123", "manual_checkpoint", {}), CheckpointManager())):
        with pytest.raises(UnknownStep, match="begin_step"):
            who.commit_step(wrong)


@pytest.mark.parametrize("before", [False, True], ids=["reply", "call"])
def test_a_commit_whose_reply_is_lost_is_stored_once(
    manager: CheckpointManager, db: Database, conn: psycopg.Connection[Any], before: bool
) -> None:
    lossy: Any = Lossy(db, {"commit_checkpoint"}, before=before)
    assert commit(CheckpointManager(lossy), {"n": 1}).sequence_number == 1
    assert lossy.lost == ["commit_checkpoint"]
    assert commit(manager, {"n": 2}).sequence_number == 2
    assert conn.execute("SELECT count(*) FROM agentos.checkpoints").fetchone() == (2,)


def test_a_refused_commit_leaves_the_step_for_another_try(manager: CheckpointManager, database_dsn: str) -> None:
    held = TaskManager().create_task("held", kind="shell", payload={"command": "date"}, task_id="task-124")
    step = manager.begin_step(held.task_id, "manual_checkpoint", {})
    with psycopg.connect(database_dsn, autocommit=True) as conn, LeaseManager(conn) as leases:
        lease = leases.acquire_lease(60)
        assert lease
        with ThreadPoolExecutor(1) as pool, pytest.raises(TaskHeld, match="task-124"):
            pool.submit(manager.commit_step, step).result()  # a new thread: without the lease
        leases.hand_back(lease.work_item_id)
        assert manager.commit_step(step).sequence_number == 1


@pytest.mark.parametrize("snapshot", [{"a": "\x00"}, {"a": float("inf")}, {1: 2}, {"a": {1, 2}}, b"x"])
def test_a_snapshot_that_json_cannot_hold_is_refused(manager: CheckpointManager, snapshot: Any) -> None:
    with pytest.raises(InvalidValue, match="snapshot"):
        manager.begin_step("task-123", "iteration_end", snapshot)


def test_a_snapshot_of_more_than_8_mib_is_refused(manager: CheckpointManager) -> None:
    with pytest.raises(ValueTooLarge, match="snapshot"):
        manager.begin_step("task-123", "iteration_end", {"a": "x" * (8 * 1024 * 1024)})


def test_what_does_not_exist_is_named_with_the_fix(manager: CheckpointManager) -> None:
    with pytest.raises(UnknownTask, match="create_task"):
        manager.begin_step("task-999", "iteration_end", {})
    with pytest.raises(UnknownTask):
        manager.get_last_verified_checkpoint("task-999")
    for item in (99, "99", "work-item-123", -1):
        with pytest.raises(UnknownWorkItem, match="snapshot"):
            manager.begin_step("task-123", "iteration_end", {}, work_item_id=item)
    for wrong in ("task-123#1", "task-123", "", "task-999#1", "task-123#x"):
        with pytest.raises(UnknownCheckpoint):
            manager.verify_checkpoint(wrong)


def test_an_item_of_the_task_may_be_named(manager: CheckpointManager, conn: psycopg.Connection[Any]) -> None:
    TaskManager().create_task("items", task_id="task-124", items=[{"kind": "shell", "payload": {"command": "date"}}])
    row = conn.execute("SELECT item_id FROM agentos.work_items").fetchone()
    assert row
    for name in (row[0], str(row[0])):
        step = manager.begin_step("task-124", "iteration_end", {}, work_item_id=name)
        assert manager.commit_step(step).work_item_id == row[0]
    with pytest.raises(UnknownWorkItem):  # it is another task's
        manager.begin_step("task-123", "iteration_end", {}, work_item_id=row[0])


# -- verification --------------------------------------------------------------------------------------------------


def test_the_last_verified_is_the_newest_that_holds_and_nothing_is_marked(
    manager: CheckpointManager, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    paths = [tmp_path / str(n) for n in range(25)]  # more than one page
    for path in paths:
        path.touch()
        commit(manager, {"path": path.name}, there(path))
    for path in reversed(paths):
        last = manager.get_last_verified_checkpoint("task-123")
        assert last
        assert last.snapshot == {"path": path.name}
        path.unlink()
    assert manager.get_last_verified_checkpoint("task-123") is None
    assert conn.execute("SELECT count(*) FROM agentos.checkpoints WHERE superseded_at IS NOT NULL").fetchone() == (0,)
    paths[7].touch()
    last = manager.get_last_verified_checkpoint("task-123")
    assert last
    assert last.snapshot == {"path": "7"}


def test_a_partial_pack_needs_as_many_as_it_says(manager: CheckpointManager, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.touch()
    evidence = [there(one), there(tmp_path / "none")]
    verdicts = []
    partial, both = EvidencePack(evidence, allow_partial=True), EvidencePack(evidence, min_verified=2)
    for pack in (EvidencePack(evidence), partial, both):
        step = manager.begin_step("task-123", "iteration_end", {})
        verdicts.append(manager.verify_checkpoint(manager.commit_step(step, pack).checkpoint_id))
    assert verdicts == [False, True, False]


def test_an_exit_code_is_that_of_the_ledger(manager: CheckpointManager) -> None:
    ledger = ToolLedger()
    succeeded = Evidence(EvidenceType.COMMAND_EXIT, "it worked", {"exit_code": 0})
    named = Evidence(EvidenceType.COMMAND_EXIT, "make worked", {"exit_code": 0}, {"command": "make"})
    assert manager.verify_checkpoint(commit(manager, {}, succeeded).checkpoint_id) is False
    ledger.execute_or_replay("bash", "make", "task-123", lambda: {"exit_code": 0})
    made = commit(manager, {}, succeeded, named)
    assert manager.verify_checkpoint(made.checkpoint_id) is True
    ledger.execute_or_replay("bash", "later", "task-123", lambda: {"exit_code": 1})
    assert manager.verify_checkpoint(made.checkpoint_id) is True  # the newest call before the commit counts
    assert manager.verify_checkpoint(commit(manager, {}, succeeded).checkpoint_id) is False


def test_a_named_command_counts_as_it_was_executed_last(manager: CheckpointManager) -> None:
    ledger = ToolLedger()
    named = Evidence(EvidenceType.COMMAND_EXIT, "make worked", {"exit_code": 0}, {"command": "make"})
    ledger.execute_or_replay("bash", "make", "task-123", lambda: {"exit_code": 0})
    made = commit(manager, {}, named)
    verdicts = []
    for exit_code in (0, 2, 0):
        ledger.execute_or_replay("bash", "make", "task-123", lambda n=exit_code: {"exit_code": n}, force_execute=True)
        verdicts.append(manager.verify_checkpoint(made.checkpoint_id))
    assert verdicts == [True, False, True]


def test_a_changed_snapshot_does_not_verify(manager: CheckpointManager, conn: psycopg.Connection[Any]) -> None:
    made = commit(manager, {"n": 1})
    conn.execute("UPDATE agentos.checkpoints SET snapshot = '{\"n\":2}'")
    assert manager.verify_checkpoint(made.checkpoint_id) is False
    assert manager.get_last_verified_checkpoint("task-123") is None


def test_rollback_gives_a_checkpoint_only_if_it_holds(manager: CheckpointManager, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.touch()
    made = commit(manager, {"n": 1}, there(artifact))
    commit(manager, {"n": 2})
    assert manager.rollback_to_checkpoint(made.checkpoint_id) == made
    artifact.unlink()
    with pytest.raises(CheckpointInvalid, match="does not exist"):
        manager.rollback_to_checkpoint(made.checkpoint_id)


def test_evidence_that_is_false_is_stored_as_it_is(manager: CheckpointManager, tmp_path: Path) -> None:
    made = commit(manager, {}, there(tmp_path / "none"))
    assert made.evidence_pack.evidence_list[0].metadata["made_on"]["host"] == os.uname().nodename
    assert "does not exist" in manager.explain_checkpoint(made.checkpoint_id).reason


# -- under a lease -------------------------------------------------------------------------------------------------


@pytest.fixture
def held(manager: CheckpointManager, conn: psycopg.Connection[Any]) -> Any:
    TaskManager().create_task("held", kind="shell", payload={"command": "date"}, task_id="task-124")
    leases = LeaseManager(conn)
    lease = leases.acquire_lease(60)
    assert lease
    yield lease
    current_lease.set(None)


def test_under_a_lease_the_item_is_named_by_itself(manager: CheckpointManager, held: WorkItemLease) -> None:
    made = manager.commit_step(manager.begin_step("task-124", "iteration_end", {"n": 1}))
    assert made.work_item_id == held.work_item_id
    assert manager.get_last_verified_checkpoint("task-124", held.work_item_id) == made


def test_after_the_lease_is_lost_nothing_is_written(
    manager: CheckpointManager, held: WorkItemLease, conn: psycopg.Connection[Any]
) -> None:
    step = manager.begin_step("task-124", "iteration_end", {})
    conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")
    with pytest.raises(LeaseLost):
        manager.commit_step(step)
    assert conn.execute("SELECT count(*) FROM agentos.checkpoints").fetchone() == (0,)


def test_an_item_does_not_resume_from_a_checkpoint_without_a_place_in_its_program(
    manager: CheckpointManager, held: WorkItemLease, db: Database
) -> None:
    manager.commit_step(manager.begin_step("task-124", "manual_checkpoint", {"by": "the manager"}))
    check = verifier(db, "task-124", may_rerun=False).row
    assert drive(db, newest_holding("task-124", held.work_item_id, check)).row is None
    assert drive(db, newest_holding("task-124", None, check)).row is not None


def test_steps_that_are_begun_and_never_committed_do_not_gather_for_ever(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentos.core.checkpoints.manager.BEGUN_STEPS", 3)
    steps = [manager.begin_step("task-123", "manual_checkpoint", {"n": n}) for n in range(5)]
    with pytest.raises(UnknownStep, match="were begun after it"):
        manager.commit_step(steps[1])
    assert [manager.commit_step(step).snapshot for step in steps[2:]] == [{"n": 2}, {"n": 3}, {"n": 4}]


def test_walking_back_reads_one_checkpoint_first_and_only_then_pages(
    manager: CheckpointManager, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(30):
        commit(manager, {"n": n})
    asked: list[int] = []
    run = Database.run

    def counting(self: Database, call: Any) -> Any:
        asked.append(call.args[-1])
        return run(self, call)

    monkeypatch.setattr(Database, "run", counting)

    def walk(holds: int) -> list[int]:
        asked.clear()
        verify = verifier(db, "task-123", may_rerun=False).row
        flow = newest_holding(
            "task-123", None, lambda row: replace(verify(row), holds=row.sequence_number == holds), placed=False
        )
        found = drive(db, flow).row
        assert (found.sequence_number if found else 0) == holds
        return list(asked)

    assert [walk(30), walk(29), walk(25), walk(0)] == [[1], [1, 4], [1, 4, 20], [1, 4, 20, 20]]
