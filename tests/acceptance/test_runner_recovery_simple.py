"""The parts of recovery, one by one: `python3 tests/acceptance/test_runner_recovery_simple.py`, or under pytest.

As a script it uses the default database (AGENTOS_DSN, else the embedded one) and prints what docs/quick-reference.md
says; its checks are real. It needs the package, which it finds in the checkout's .venv when it is not installed.
"""

import os
import sys
import tempfile
from hashlib import sha256
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

from agentos.core.checkpoints import (  # noqa: E402
    CheckpointManager,
    Evidence,
    EvidencePack,
    EvidenceType,
)
from agentos.core.errors import InvalidCheckpointType  # noqa: E402
from agentos.core.idempotency import LLMOutputCache, ToolLedger  # noqa: E402
from agentos.core.runner import TaskRunner  # noqa: E402
from agentos.core.task import TaskManager  # noqa: E402


def new_task(name: str) -> str:
    """A task of its own."""
    return TaskManager().create_task(f"acceptance: {name}", task_id=fresh_id(name)).task_id


def runner_components() -> None:
    """A runner has its three parts with recovery, and none of them without."""
    on, off = TaskRunner(enable_recovery=True), TaskRunner()
    expect(isinstance(on.checkpoint_manager, CheckpointManager), "no CheckpointManager with recovery")
    expect(isinstance(on.llm_cache, LLMOutputCache), "no LLMOutputCache with recovery")
    expect(isinstance(on.tool_ledger, ToolLedger), "no ToolLedger with recovery")
    parts = (off.checkpoint_manager, off.llm_cache, off.tool_ledger)
    expect(parts == (None, None, None), f"parts without recovery: {parts}")
    outcome = on.run_with_recovery(new_task("components"))
    expect(outcome.completed, f"the run ended {outcome.status}: {outcome.reason}")
    expect(outcome.items_run == 4, f"{outcome.items_run} items were run, not the plan and its three")


def checkpoint_lifecycle() -> None:
    """Begin, commit, verify, walk back past one that does not hold any more, roll back."""
    manager, task_id = CheckpointManager(), new_task("checkpoints")
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        artifact = Path(folder, "artifact.txt")
        artifact.write_text("made")
        exists = Evidence(EvidenceType.ARTIFACT_EXISTS, "the artifact", {"path": str(artifact), "type": "file"})
        first = manager.commit_step(
            manager.begin_step(task_id, "iteration_start", {"iteration": 1}), EvidencePack(evidence_list=[])
        )
        second = manager.commit_step(
            manager.begin_step(task_id, "iteration_end", {"iteration": 2}), EvidencePack(evidence_list=[exists])
        )
        expect([first.sequence_number, second.sequence_number] == [1, 2], "sequence numbers have gaps")
        expect(manager.verify_checkpoint(second.checkpoint_id), "an artifact that is there did not verify")
        expect(manager.get_last_verified_checkpoint(task_id) == second, "the newest was not the last verified")
        artifact.unlink()
        expect(not manager.verify_checkpoint(second.checkpoint_id), "an artifact that is gone verified")
        expect(manager.get_last_verified_checkpoint(task_id) == first, "did not walk back to the one that holds")
        expect(manager.rollback_to_checkpoint(first.checkpoint_id).snapshot == {"iteration": 1}, "snapshot is another")
    try:
        manager.begin_step(task_id, "my_checkpoint", {})
    except InvalidCheckpointType as refused:
        expect("Invalid checkpoint_type" in str(refused), f"the error says {refused}")
    else:
        raise AssertionError("an invalid checkpoint_type was taken")


def llm_cache() -> None:
    """The second time nobody generates; after `invalidate` somebody does."""
    cache, task_id = LLMOutputCache(), new_task("llm-cache")
    calls: list[int] = []

    def generate() -> dict[str, Any]:
        calls.append(1)
        return {"plan": ["one", "two"]}

    asked = ("plan", "Generate a plan", "gpt-4", task_id)
    outputs = [cache.get_or_generate(*asked, generate_fn=generate) for _ in range(3)]
    expect(outputs == [{"plan": ["one", "two"]}] * 3, f"outputs differ: {outputs}")
    expect(len(calls) == 1, f"generated {len(calls)} times")
    expect(cache.get_stats()["hit_rate"] == 2 / 3, f"hit rate is {cache.get_stats()['hit_rate']}")
    expect(cache.invalidate(*asked), "there was nothing to invalidate")
    cache.get_or_generate(*asked, generate_fn=generate)
    expect(len(calls) == 2, "an invalidated output was used")
    cache.reset_stats()
    expect(cache.get_stats()["hit_rate"] == 0.0, "statistics were not reset")


def tool_ledger() -> None:
    """Executed once, replayed, forced; one that raised runs again."""
    ledger, task_id = ToolLedger(), new_task("ledger")
    calls: list[str] = []

    def tool(name: str) -> dict[str, Any]:
        calls.append(name)
        if calls.count(name) == 1 and name == "breaks":
            raise OSError("the first time it breaks")
        return {"exit_code": 0, "call": len(calls)}

    first = ledger.execute_or_replay("bash", "echo hello", task_id, lambda: tool("echo"))
    again = ledger.execute_or_replay("bash", "echo hello", task_id, lambda: tool("echo"))
    expect(not first.get("replayed") and again.get("replayed"), f"replayed: {first} {again}")
    expect(calls == ["echo"] and again["call"] == 1, f"calls: {calls}")
    expect(ledger.get_stats()["replay_rate"] == 0.5, f"replay rate is {ledger.get_stats()['replay_rate']}")
    forced = ledger.execute_or_replay("bash", "echo hello", task_id, lambda: tool("echo"), force_execute=True)
    expect(forced["call"] == 2, "force_execute replayed")
    try:
        ledger.execute_or_replay("bash", "false", task_id, lambda: tool("breaks"))
    except OSError:
        expect(ledger.get_execution_history(task_id)[0]["state"] == "failed", "a call that raised is not recorded so")
    mended = ledger.execute_or_replay("bash", "false", task_id, lambda: tool("breaks"))
    expect(not mended["replayed"] and calls.count("breaks") == 2, "a call that raised did not run again")
    expect(len(ledger.get_execution_history(task_id)) == 2, "the history has another length")


def evidence_collection() -> None:
    """A runner collects evidence of an item; it is committed with it, holds, and fails when the world changes."""
    runner = TaskRunner(enable_recovery=True)
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        made = Path(folder, "made.txt")
        digest = sha256(b"content\n").hexdigest()
        claim = {"evidence_type": "file_sha256", "expected": {"path": str(made), "sha256": digest}}
        payload = {"command": f"echo content > {made}", "evidence": [claim]}
        pack = runner.collect_evidence({"kind": "shell", "payload": payload}, {"exit_code": 0})
        expect([each.evidence_type for each in pack.evidence_list] == [EvidenceType.FILE_SHA256], f"collected {pack}")
        bare = runner.collect_evidence({"kind": "shell", "payload": {"command": "true"}}, {"exit_code": 0})
        expect(bare.evidence_list[0].expected == {"exit_code": 0}, f"collected {bare} of a plain command")
        task = TaskManager().create_task(
            "acceptance: evidence", task_id=fresh_id("evidence"), items=[{"kind": "shell", "payload": payload}]
        )
        expect(runner.run_with_recovery(task.task_id).completed, "the run did not complete")
        manager = CheckpointManager()
        last = manager.get_last_verified_checkpoint(task.task_id)
        if last is None:
            raise AssertionError("the item's checkpoint does not hold")
        expect(last.checkpoint_type == "tool_executed", f"its type is {last.checkpoint_type}")
        made.write_text("changed")
        expect(not manager.verify_checkpoint(last.checkpoint_id), "a changed file verified")


CHECKS: dict[str, Check] = {
    "Runner Components": runner_components,
    "Checkpoint Lifecycle": checkpoint_lifecycle,
    "LLM Cache": llm_cache,
    "Tool Ledger": tool_ledger,
    "Evidence Collection": evidence_collection,
}


def pytest_generate_tests(metafunc: Any) -> None:
    """Each check is a test of its own."""
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


def test_check(check: Check, database_dsn: str) -> None:
    check()


if __name__ == "__main__":
    sys.exit(main(CHECKS, noun="tests", praise="ALL TESTS"))
