"""Recovery from end to end: `python3 tests/acceptance/test_task9_e2e.py`, or under pytest.

As a script it uses the default database (AGENTOS_DSN, else the embedded one) and prints what docs/quick-reference.md
says; a runner process really is killed. It finds the package in the checkout's .venv when it is not installed.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    venv = ROOT / ".venv" / "bin" / "python"
    if find_spec("agentos") is None and venv.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(venv, [str(venv), *sys.argv])  # noqa: S606  the same script, by the python that `make` made
    if find_spec("agentos") is None:
        sys.exit("agentos is not installed for this python. Fix: run `make venv`, then this again")

from tests.acceptance.scenario import Check, expect, fresh_id, main  # noqa: E402

from agentos.core.checkpoints import CheckpointManager  # noqa: E402
from agentos.core.errors import InDoubt, TaskHeld  # noqa: E402
from agentos.core.idempotency import LLMOutputCache, ToolLedger  # noqa: E402
from agentos.core.runner import TaskRunner  # noqa: E402
from agentos.core.task import TaskManager  # noqa: E402
from agentos.core.worker_pool import LeaseManager  # noqa: E402
from agentos.store import get_db  # noqa: E402

PATIENCE_S = 60.0
RUN = "import sys; from agentos.core.runner import TaskRunner; TaskRunner(True).run_with_recovery(sys.argv[1])"
BEGIN_AND_DIE = """
import os, signal, sys
from agentos.core.idempotency import ToolLedger
ToolLedger().execute_or_replay("pay", "invoice 7", sys.argv[1], lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def process(code: str, task_id: str) -> "subprocess.Popen[bytes]":
    """Another process with the same database."""
    return subprocess.Popen([sys.executable, "-c", code, task_id], stdout=sys.stderr)


def until_exists(path: Path, alive: "subprocess.Popen[bytes]") -> None:
    """Wait for a file that a process is going to make."""
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        expect(alive.poll() is None, f"the process ended with {alive.poll()} before it made {path.name}")
        expect(time.monotonic() < end, f"{path.name} was not made within {PATIENCE_S:g} s")
        time.sleep(0.01)


def shell(key: str, command: str, **more: Any) -> dict[str, Any]:
    """A work item that runs a command."""
    payload = {"command": command, **more.pop("payload", {})}
    return {"key": key, "kind": "shell", "payload": payload, **more}


def basic_recovery() -> None:
    """A runner is killed with SIGKILL in its second item; another goes on, and no effect of the first is repeated."""
    with tempfile.TemporaryDirectory() as folder:
        effects, inside = Path(folder, "effects.log"), Path(folder, "inside-two")
        log = shlex.quote(str(effects))
        # The second item says that it may run again: it looks before it acts, and only its first attempt stays.
        second = f"grep -qs two {log} && exit 0; touch {shlex.quote(str(inside))}; echo two >> {log}; sleep 60"
        items = [
            shell("one", f"echo one >> {log}"),
            shell("two", second, depends_on=["one"], payload={"on_doubt": "retry"}),
            shell("three", f"echo three >> {log}", depends_on=["two"]),
        ]
        task = TaskManager().create_task("acceptance: recovery", task_id=fresh_id("recovery"), items=items)
        first = process(RUN, task.task_id)
        until_exists(inside, first)
        while "two" not in effects.read_text():
            time.sleep(0.01)
        first.kill()
        first.wait()
        before = CheckpointManager().get_last_verified_checkpoint(task.task_id)
        if before is None:
            raise AssertionError("the first item left no checkpoint that holds")
        outcome = TaskRunner(enable_recovery=True).run_with_recovery(task.task_id)
        expect(outcome.completed, f"the second run ended {outcome.status}: {outcome.reason}")
        expect(outcome.resumed_from == before.checkpoint_id, f"it resumed from {outcome.resumed_from}")
        expect(outcome.items_run == 2, f"it ran {outcome.items_run} items, not the two that were left")
        done = effects.read_text().split()
        expect(done == ["one", "two", "three"], f"effects: {done}")


def idempotency() -> None:
    """A prompt is paid for once and a tool executed once, by whoever asks; what a dead process began is in doubt."""
    task_id = TaskManager().create_task("acceptance: idempotency", task_id=fresh_id("idempotency")).task_id
    calls: list[str] = []

    def told(name: str, answer: Any) -> Callable[[], Any]:
        return lambda: (calls.append(name), answer)[1]  # type: ignore[func-returns-value]  # for its effect

    for _ in range(2):  # each time with new objects, as after a restart
        output = LLMOutputCache().get_or_generate("plan", "a prompt", "gpt-4", task_id, told("paid", "text"))
        expect(output == "text", f"the output is {output!r}")
        result = ToolLedger().execute_or_replay("bash", "make", task_id, told("executed", {"exit_code": 2}))
        expect(result["exit_code"] == 2, f"the result is {result}")
    expect(calls == ["paid", "executed"], f"calls: {calls}")
    died = process(BEGIN_AND_DIE, task_id)
    expect(died.wait(PATIENCE_S) != 0, "the process did not die in its tool")
    bury_the_dead()
    ledger = ToolLedger()
    try:
        ledger.execute_or_replay("pay", "invoice 7", task_id, told("twice", None))
    except InDoubt:
        expect(ledger.get_execution_history(task_id)[0]["in_doubt"], "the history does not show the doubt")
    expect("twice" not in calls, "a call in doubt was executed again")
    settled = ledger.execute_or_replay("pay", "invoice 7", task_id, lambda: {"paid": True}, on_doubt="retry")
    expect(settled["paid"] and not settled["replayed"], f"settled as {settled}")


def bury_the_dead() -> None:
    """A runner of this host finds dead neighbours without waiting for their TTL."""
    TaskRunner().run_task(TaskManager().create_task("acceptance: look around", task_id=fresh_id("around")).task_id)


def runner_integration() -> None:
    """Plan, items, checkpoints, status; a terminal task is left alone; what another holds is refused; off means off."""
    task = TaskManager().create_task("acceptance: integration", task_id=fresh_id("integration"))
    runner = TaskRunner(enable_recovery=True)
    expect(runner.run_with_recovery(task.task_id).completed, "the task did not complete")
    expect(TaskManager().get_task(task.task_id).status == "completed", "its status is another")
    commands = runner.tool_ledger.get_execution_history(task.task_id) if runner.tool_ledger else []
    expect(len(commands) == 3, f"{len(commands)} tool calls were recorded, not the plan's three")
    last = CheckpointManager().get_last_verified_checkpoint(task.task_id)
    expect(last is not None and last.sequence_number == 4, f"its last checkpoint is {last}")
    again = TaskRunner(enable_recovery=True).run_with_recovery(task.task_id)
    expect(again.completed and again.items_run == 0, f"a terminal task was run: {again}")
    expect(CheckpointManager().get_last_verified_checkpoint(task.task_id) == last, "a terminal task was written to")
    off = TaskManager().create_task("acceptance: no recovery", task_id=fresh_id("off"))
    expect(TaskRunner().run_task(off.task_id).completed, "the task without recovery did not complete")
    expect(
        CheckpointManager().get_last_verified_checkpoint(off.task_id) is None, "there are checkpoints without recovery"
    )
    kind = fresh_id("held-kind")
    held = TaskManager().create_task("acceptance: held", task_id=fresh_id("held"), kind=kind)
    with get_db() as conn, LeaseManager(conn, worker_id="worker-123", kinds=[kind]) as manager:
        lease = manager.acquire_lease(lease_duration_seconds=60)
        if lease is None or lease.task_id != held.task_id:
            raise AssertionError(f"leased {lease}")
        try:
            commit_without_the_lease(held.task_id)
        except TaskHeld:
            expect(
                manager.release_lease(lease.work_item_id, success=True) == "completed", "the release did not complete"
            )
        else:
            raise AssertionError("a task that another holds was written to without its lease")


def commit_without_the_lease(task_id: str) -> None:
    """Commit a checkpoint as another program would: a new thread does not inherit this one's lease."""
    manager = CheckpointManager()
    step = manager.begin_step(task_id, "manual_checkpoint", {})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(manager.commit_step, step).result()


CHECKS: dict[str, Check] = {
    "Basic Recovery": basic_recovery,
    "Idempotency": idempotency,
    "Runner Integration": runner_integration,
}


def pytest_generate_tests(metafunc: Any) -> None:
    """Each scenario is a test of its own."""
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


def test_scenario(check: Check, database_dsn: str) -> None:
    check()


if __name__ == "__main__":
    sys.exit(main(CHECKS, noun="scenarios", praise="ALL E2E TESTS"))
