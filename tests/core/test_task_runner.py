"""TaskRunner: to the end, in one process; what it refuses, what it leaves alone, what it goes on from."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.core.llm.endpoint import Endpoint, completion, serve
from tests.core.lossy import Lossy
from tests.core.processes import killed, start
from tests.store.engine import register

from agentos.core.checkpoints import CheckpointManager, Evidence, EvidenceType
from agentos.core.lease import current_lease
from agentos.core.runner import TaskOutcome, TaskRunner
from agentos.core.task import TaskManager
from agentos.core.worker_pool import LeaseManager
from agentos.store.calls import tasks, waits
from agentos.store.connect import Database
from agentos.store.errors import (
    CheckpointInvalid,
    ConfigInvalid,
    InvalidInput,
    TaskHeld,
    UnknownKind,
    UnknownTask,
)

RUN = """
import sys
from agentos.core.runner import TaskRunner
TaskRunner(enable_recovery=True).run_with_recovery(sys.argv[1])
"""
RECORDS = ("checkpoints", "tool_ledger", "llm_cache")
ALL = (*RECORDS, "events", "outcomes", "workers", "task_heads", "work_items")


@pytest.fixture
def manager(database_dsn: str) -> TaskManager:
    return TaskManager()


@pytest.fixture
def runner(manager: TaskManager) -> TaskRunner:
    return TaskRunner(enable_recovery=True)


def shell(command: Any, **more: Any) -> dict[str, Any]:
    payload: dict[str, Any] = {"command": command}
    payload |= {name: more.pop(name) for name in ("evidence", "on_doubt") if name in more}
    return {"kind": "shell", "payload": payload, **more}


def rows(conn: psycopg.Connection[Any], *tables: str) -> list[Any]:
    return [conn.execute(f"SELECT * FROM agentos.{table} ORDER BY 1, 2").fetchall() for table in tables]  # noqa: S608


def counts(conn: psycopg.Connection[Any], *tables: str) -> list[int]:
    return [len(found) for found in rows(conn, *tables)]


@pytest.mark.parametrize("recovery", [False, True])
def test_a_title_is_planned_and_run_to_the_end(
    manager: TaskManager, conn: psycopg.Connection[Any], recovery: bool
) -> None:
    task = manager.create_task("Recoverable Task", payload={"for": "planning"})
    runner = TaskRunner(enable_recovery=recovery)
    outcome = runner.run_with_recovery(task.task_id) if recovery else runner.run_task(task.task_id)
    assert (outcome.status, outcome.items_run, outcome.reason) == ("completed", 4, None)
    assert set(outcome.result) == {"plan", "plan/inspect", "plan/compute", "plan/verify"}
    assert "Recoverable Task" in outcome.result["plan/inspect"]["stdout"]
    assert manager.get_task(task.task_id).status == "completed"
    assert counts(conn, *RECORDS) == ([4, 3, 1] if recovery else [0, 0, 0])


def test_a_terminal_task_is_left_alone(manager: TaskManager, runner: TaskRunner, conn: psycopg.Connection[Any]) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo hello")])
    first = runner.run_with_recovery("task-1")
    before = rows(conn, *ALL)
    again = runner.run_with_recovery("task-1")
    assert (again.result, again.items_run) == (first.result, 0)
    assert TaskRunner().run_task("task-1").completed
    assert rows(conn, *ALL) == before


def test_a_task_of_one_item_has_its_result(manager: TaskManager, runner: TaskRunner) -> None:
    manager.create_task("t", task_id="task-1", kind="llm", payload={"prompt": "hello"})
    assert runner.run_task("task-1").result.startswith("[stand-in model] hello")


def test_dependants_run_after_what_they_need(manager: TaskManager, runner: TaskRunner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    items = [
        shell(f"echo c >> {log}", key="c", depends_on=["b"]),
        shell(f"echo b >> {log}", key="b", depends_on=["a"]),
        shell(f"echo a >> {log}", key="a"),
    ]
    manager.create_task("t", task_id="task-1", items=items)
    assert runner.run_task("task-1").completed
    assert log.read_text().split() == ["a", "b", "c"]


@pytest.mark.parametrize("recovery", [False, True])
def test_a_failing_item_is_tried_again_and_its_retry_is_waited_for(
    manager: TaskManager, tmp_path: Path, recovery: bool
) -> None:
    once = tmp_path / "once"
    manager.create_task("t", task_id="task-1", items=[shell(f"[ -e {once} ] || {{ touch {once}; exit 3; }}")])
    outcome = TaskRunner(enable_recovery=recovery).run_task("task-1")
    assert (outcome.status, outcome.items_run) == ("completed", 2)


def test_the_last_attempt_fails_the_task_with_the_reason(manager: TaskManager, runner: TaskRunner) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo broken >&2; exit 3", max_attempts=1)])
    outcome = runner.run_task("task-1")
    assert (outcome.status, outcome.result) == ("failed", None)
    assert "ended with exit code 3" in (outcome.reason or "")
    assert "broken" in (outcome.reason or "")


def test_too_many_iterations_fail_the_task_and_keep_its_checkpoints(
    manager: TaskManager, runner: TaskRunner, conn: psycopg.Connection[Any], db: Database
) -> None:
    chain: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["b"]}
    items = [shell(f"echo {key}", key=key, depends_on=needs) for key, needs in chain.items()]
    manager.create_task("t", task_id="task-1", items=items)
    outcome = runner.run_with_recovery("task-1", max_iterations=1)
    assert (outcome.status, outcome.items_run) == ("failed", 1)
    assert "max_iterations=1" in (outcome.reason or "")
    assert counts(conn, "checkpoints") == [1]
    assert db.run(tasks.retry_task("task-1")) == 2
    assert runner.run_with_recovery("task-1").items_run == 2
    assert counts(conn, "tool_ledger") == [3]


def test_just_enough_iterations_are_enough(manager: TaskManager, runner: TaskRunner) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo 1"), shell("echo 2")])
    assert runner.run_task("task-1", max_iterations=2).completed


def test_unknown_kinds_are_refused_before_anything_is_claimed(
    manager: TaskManager, runner: TaskRunner, conn: psycopg.Connection[Any]
) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo 1"), {"kind": "research"}])
    with pytest.raises(UnknownKind, match="research"):
        runner.run_task("task-1")
    assert counts(conn, "lease_ready", "tool_ledger", "workers") == [2, 0, 0]


def test_what_cannot_be_run_is_refused(manager: TaskManager, runner: TaskRunner) -> None:
    manager.create_task("t", task_id="task-1")
    with pytest.raises(UnknownTask):
        runner.run_with_recovery("task-9")
    with pytest.raises(InvalidInput, match="max_iterations"):
        runner.run_task("task-1", max_iterations=0)
    with pytest.raises(ConfigInvalid, match="enable_recovery=True"):
        TaskRunner().run_with_recovery("task-1")


def test_a_task_held_elsewhere_is_refused(
    manager: TaskManager, runner: TaskRunner, conn: psycopg.Connection[Any], db: Database
) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo 1"), shell("echo 2")])
    (item, *_) = register(db).claim()
    with pytest.raises(TaskHeld, match="task-1"):
        runner.run_with_recovery("task-1")
    assert counts(conn, "lease_held", "checkpoints") == [1, 0]
    assert item.attempt == 1


def test_a_cancelled_task_ends_cancelled(manager: TaskManager, runner: TaskRunner, tmp_path: Path) -> None:
    cancel = "from agentos.core.task import TaskManager; TaskManager().cancel_task('task-1')"
    command = shlex.join(["env", f"AGENTOS_DSN={os.environ['AGENTOS_DSN']}", sys.executable, "-c", cancel])
    log = tmp_path / "log"
    manager.create_task(
        "t", task_id="task-1",
        items=[shell(command, key="a"),
               shell(f"touch {log}", key="b", depends_on=["a"])],
    )  # fmt: skip
    assert runner.run_with_recovery("task-1").status == "cancelled"
    assert not log.exists()


def test_a_completion_whose_reply_is_lost_is_a_completion(manager: TaskManager, db: Database) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("echo 1"), shell("echo 2")])
    lossy: Any = Lossy(db, {"complete"})
    assert TaskRunner(enable_recovery=True, db=lossy).run_task("task-1").completed
    assert lossy.lost == ["complete"]


# -- evidence ------------------------------------------------------------------------------------------------------


def exists(path: Path) -> dict[str, Any]:
    return {"evidence_type": "artifact_exists", "description": "the product", "expected": {"path": str(path)}}


@pytest.mark.parametrize("recovery", [False, True])
def test_an_item_whose_evidence_is_false_is_not_done(manager: TaskManager, tmp_path: Path, recovery: bool) -> None:
    manager.create_task("t", task_id="task-1", items=[shell("true", evidence=[exists(tmp_path / "none")])])
    outcome = TaskRunner(enable_recovery=recovery).run_task("task-1")
    assert (outcome.status, outcome.items_run) == ("failed", 1)
    assert "does not exist" in (outcome.reason or "")


@pytest.mark.parametrize("recovery", [False, True])
def test_exit_code_evidence_is_about_the_items_own_command(manager: TaskManager, recovery: bool) -> None:
    for command in ("exit 0", ["sh", "-c", "exit 0"]):
        claim = {"evidence_type": "command_exit", "expected": {"exit_code": 0}}
        task = manager.create_task("t", items=[shell(command, evidence=[claim])])
        assert TaskRunner(enable_recovery=recovery).run_task(task.task_id).completed


# -- recovery ------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(manager: TaskManager, tmp_path: Path) -> Callable[[], None]:
    """task-1: a (makes `product`, its evidence), then b; a runner process is killed with SIGKILL in b."""
    log, inside, product = tmp_path / "log", tmp_path / "inside", tmp_path / "product"
    items = [
        shell(f"echo a >> {log}; touch {product}", key="a", evidence=[exists(product)]),
        shell(f"[ -e {inside} ] || {{ touch {inside}; sleep 60; }}", key="b", depends_on=["a"], on_doubt="retry"),
    ]  # fmt: skip
    manager.create_task("t", task_id="task-1", items=items)

    def kill() -> None:
        process = start(RUN, "task-1")
        killed(process, inside)

    return kill


def test_a_killed_run_goes_on_at_once_from_its_last_checkpoint(
    manager: TaskManager, runner: TaskRunner, interrupted: Callable[[], None], tmp_path: Path
) -> None:
    interrupted()
    outcome = runner.run_with_recovery("task-1")  # the dead one's TTL is 15 s: it is not waited for
    assert (outcome.status, outcome.items_run, outcome.resumed_from) == ("completed", 1, "task-1#1")
    assert (tmp_path / "log").read_text().split().count("a") == 1


def test_a_killed_run_whose_call_is_in_doubt_stops_by_default(
    manager: TaskManager, runner: TaskRunner, tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    manager.create_task("t", task_id="task-1", items=[shell(f"touch {inside}; sleep 60")])
    killed(start(RUN, "task-1"), inside)
    outcome = runner.run_with_recovery("task-1")
    assert outcome.status == "failed"
    assert "never finished" in (outcome.reason or "")
    assert runner.tool_ledger
    assert runner.tool_ledger.get_execution_history("task-1")[0]["in_doubt"] is True


@pytest.fixture
def leased(manager: TaskManager, conn: psycopg.Connection[Any]) -> Iterator[Any]:
    """task-1's only item, held by hand."""
    manager.create_task("t", task_id="task-1", items=[shell("echo hello", key="a")])
    leases = LeaseManager(conn)
    lease = leases.acquire_lease(60)
    assert lease
    yield leases, lease
    current_lease.set(None)


def test_a_held_item_is_executed_with_a_checkpoint_and_never_twice(
    runner: TaskRunner, leased: Any, conn: psycopg.Connection[Any]
) -> None:
    leases, lease = leased
    output = runner.execute_work_item_with_checkpoint("task-1", lease)
    assert output["stdout"] == "hello\n"
    leases.hand_back(lease.work_item_id)  # before it was completed
    again = leases.acquire_lease(60)
    assert runner.execute_work_item_with_checkpoint("task-1", again) == output
    assert leases.release_lease(again.work_item_id, success=True, result=output) == "completed"
    assert counts(conn, "tool_ledger", "checkpoints") == [1, 1]


def test_resuming_from_an_older_checkpoint_supersedes_what_came_later(
    runner: TaskRunner, leased: Any, conn: psycopg.Connection[Any]
) -> None:
    leases, lease = leased
    manager = CheckpointManager()
    older = manager.commit_step(manager.begin_step("task-1", "manual_checkpoint", {"n": 1}))
    runner.execute_work_item_with_checkpoint("task-1", lease)
    leases.hand_back(lease.work_item_id)
    runner.resume_from_checkpoint("task-1", older)
    outcome = runner.run_task("task-1")
    assert (outcome.status, outcome.resumed_from) == ("completed", older.checkpoint_id)
    superseded = conn.execute(
        "SELECT sequence_number FROM agentos.checkpoints WHERE superseded_at IS NOT NULL"
    ).fetchall()
    assert superseded == [(2,)]
    assert counts(conn, "tool_ledger") == [1]  # the call itself is replayed


def test_only_a_checkpoint_of_the_task_that_holds_is_resumed_from(
    manager: TaskManager, runner: TaskRunner, tmp_path: Path
) -> None:
    manager.create_task("t", task_id="task-1")
    manager.create_task("t", task_id="task-2")
    checkpoints = CheckpointManager()
    gone = Evidence(EvidenceType.ARTIFACT_EXISTS, "gone", {"path": str(tmp_path / "gone")})
    made = checkpoints.commit_step(checkpoints.begin_step("task-1", "manual_checkpoint", {}), [gone])
    with pytest.raises(CheckpointInvalid, match="does not exist"):
        runner.resume_from_checkpoint("task-1", made)
    with pytest.raises(InvalidInput, match="task-2"):
        runner.resume_from_checkpoint("task-2", made)


# -- a real model --------------------------------------------------------------------------------------------------

PLAN = {
    "title": "p",
    "items": [
        {"key": "a", "command": "echo from the model"},
        {"key": "b", "command": "true", "depends_on": ["a"]},
    ],
}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with serve(completion(json.dumps(PLAN))) as served:
        monkeypatch.setenv("AGENTOS_LLM_BASE_URL", served.base_url)
        monkeypatch.setenv("AGENTOS_LLM_MODEL", "planner-1")
        yield served


def real(**more: Any) -> TaskRunner:
    return TaskRunner(enable_recovery=True, use_real_pipeline=True, **more)


def plan_and_park(manager: TaskManager, db: Database, recovery: bool) -> TaskOutcome:
    manager.create_task("Audit", task_id="task-1")
    return TaskRunner(enable_recovery=recovery, use_real_pipeline=True).run_task("task-1")


@pytest.mark.parametrize("recovery", [False, True])
def test_a_models_plan_waits_for_a_person_and_is_run_as_it_was_shown(
    manager: TaskManager, endpoint: Endpoint, db: Database, conn: psycopg.Connection[Any], recovery: bool
) -> None:
    outcome = plan_and_park(manager, db, recovery)
    assert (outcome.status, manager.get_task("task-1").status) == ("waiting", "waiting")
    assert "agentos approve task-1" in (outcome.reason or "")
    assert counts(conn, "work_items") == [1]
    endpoint.replies[:] = [completion('{"title": "another", "items": []}')]
    db.run(waits.answer("task-1", True, "ana"))
    outcome = TaskRunner(enable_recovery=recovery, use_real_pipeline=True).run_task("task-1")
    assert outcome.completed
    assert outcome.result["plan/a"]["stdout"] == "from the model\n"
    assert len(endpoint.requests) == 1
    if recovery:
        row = conn.execute("SELECT model, prompt_tokens FROM agentos.llm_cache").fetchone()
        assert row == ("planner-1", 7)


def test_a_plan_that_a_person_rejects_fails_the_task(manager: TaskManager, endpoint: Endpoint, db: Database) -> None:
    plan_and_park(manager, db, True)
    db.run(waits.answer("task-1", False, "ana"))
    outcome = real().run_with_recovery("task-1")
    assert (outcome.status, outcome.items_run) == ("failed", 1)
    assert "rejected by ana" in (outcome.reason or "")


def test_with_auto_approve_nobody_is_asked(manager: TaskManager, endpoint: Endpoint) -> None:
    manager.create_task("Audit", task_id="task-1")
    assert real(auto_approve=True).run_with_recovery("task-1").completed
    assert "Audit" in endpoint.requests[0][2]["messages"][0]["content"]


@pytest.mark.parametrize(
    "said",
    ["I cannot plan.", '{"items": [{"key": "a"}]}', '{"items": [{"key": "a", "command": "x", "depends_on": ["z"]}]}'],
)
def test_a_plan_that_does_not_fit_creates_nothing(
    manager: TaskManager, endpoint: Endpoint, conn: psycopg.Connection[Any], said: str
) -> None:
    endpoint.replies[:] = [completion(said)]
    manager.create_task("Audit", task_id="task-1")
    outcome = real(auto_approve=True).run_with_recovery("task-1")
    assert outcome.status == "failed"
    assert counts(conn, "work_items") == [1]


def test_a_real_model_that_is_not_configured_is_refused_at_once(manager: TaskManager) -> None:
    with pytest.raises(ConfigInvalid, match="AGENTOS_LLM"):
        TaskRunner(use_real_pipeline=True)


def test_an_item_named_as_the_planner_is_not_lost(manager: TaskManager, endpoint: Endpoint) -> None:
    items = [{"key": "plan", "command": "echo planned"}, {"key": "go", "command": "true", "depends_on": ["plan"]}]
    endpoint.replies[:] = [completion(json.dumps({"title": "p", "items": items}))]
    manager.create_task("Audit", task_id="task-1")
    outcome = real(auto_approve=True).run_with_recovery("task-1")
    assert outcome.result["plan/plan"]["stdout"] == "planned\n"
    assert outcome.items_run == 3
