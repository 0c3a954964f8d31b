"""`agentos show`: what happened to a task, and whether its evidence holds."""

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from tests.cli.conftest import Command
from tests.cli.pool import HandWorker
from tests.coordinator.daemon import until

from agentos.core.checkpoints import CheckpointManager
from agentos.core.evidence import Evidence, EvidencePack, EvidenceType
from agentos.core.process import host
from agentos.store.calls import cache, checkpoints, items, ledger, tasks, workers
from agentos.store.calls.cache import PromptIdentity
from agentos.store.calls.checkpoints import NewCheckpoint
from agentos.store.calls.items import ClaimedItem
from agentos.store.calls.ledger import CallIdentity
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database


def commit(db: Database, worker: HandWorker, item: ClaimedItem, artifact: Path) -> None:
    evidence = Evidence(EvidenceType.ARTIFACT_EXISTS, "the artifact", {"path": str(artifact)})
    snapshot = '{"step":1}'
    pack = canonical_text(EvidencePack([evidence]).as_json())
    new = NewCheckpoint(
        task_id=item.task_id, item_id=item.item_id, checkpoint_type="iteration_end", snapshot=snapshot,
        snapshot_sha256=hashlib.sha256(snapshot.encode()).hexdigest(),
        evidence=pack, ordinal=1, host=host(), workspace="/", step_id=uuid4(),
    )  # fmt: skip
    db.run(checkpoints.commit_checkpoint(new, worker.fence(item)))


def call_tool(db: Database, worker: HandWorker, item: ClaimedItem, command: str, *, finish: bool) -> None:
    identity = CallIdentity(f"key-{command}", item.task_id, item.item_id, "bash", None, 0, 1, json.dumps(command))
    fence = worker.fence(item)
    begun = db.run(
        ledger.ledger_begin(identity, fence, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60)
    )  # fmt: skip
    assert isinstance(begun.call_token, UUID)
    if finish:
        db.run(
            ledger.ledger_finish(
                identity.key, begun.call_token, fence, worker.worker_id, result="{}", exit_code=0, error=None
            )
        )  # fmt: skip


def call_model(db: Database, worker: HandWorker, item: ClaimedItem) -> None:
    prompt = PromptIdentity("llm-key", item.task_id, "plan", "model-x", "0" * 64, "Plan: tides")
    reply = db.run(cache.cache_begin(prompt, worker.fence(item), worker.worker_id, 60))
    assert reply.call_token is not None
    db.run(
        cache.cache_finish(
            prompt, reply.call_token, worker.fence(item), worker.worker_id, '"a plan"', cache.Spent(10, 20)
        )
    )
    db.run(cache.cache_begin(prompt, worker.fence(item), worker.worker_id, 60))  # a hit


def eventful(db: Database, artifact: Path) -> HandWorker:
    """A task with a crashed attempt, a checkpoint, a finished call, one in doubt, a model call; running again."""
    db.run(tasks.create_task("task-1", "a title", items='[{"key": "fetch", "kind": "work"}]'))
    dying = HandWorker(db, label="dying")
    item = dying.claim()
    commit(db, dying, item, artifact)
    call_tool(db, dying, item, "make it", finish=True)
    call_tool(db, dying, item, "send it", finish=False)
    call_model(db, dying, item)
    db.run(workers.declare_dead([dying.worker_id]))
    db.run(workers.reclaim())
    return HandWorker(db, label="second")


def shown(agentos: Command, *args: str) -> Any:
    return json.loads(agentos("show", "task-1", "--json", *args).stdout)


def test_everything_that_happened_is_in_the_story(agentos: Command, db: Database, tmp_path: Path) -> None:
    eventful(db, tmp_path / "artifact")
    story = shown(agentos)
    assert [(a["attempt"], a["ended"]) for a in story["attempts"]] == [(1, "crashed")]
    assert [(i["key"], i["place"], i["crashes"]) for i in story["items"]] == [("fetch", "ready", 1)]
    calls = {c["arguments"]: (c["state"], c["in_doubt"]) for c in story["tool_calls"]}
    assert calls == {"make it": ("finished", False), "send it": ("begun", True)}
    (prompt,) = story["llm_calls"]
    assert (prompt["operation_type"], prompt["generations"], prompt["hits"]) == ("plan", 1, 1)
    assert [e["event"] for e in story["events"]] == ["lease_reclaimed"]
    assert story["checkpoints"][0]["verdict"] is None


def test_the_story_reads_well_without_a_terminal(agentos: Command, db: Database, tmp_path: Path) -> None:
    eventful(db, tmp_path / "artifact")
    text = agentos("show", "task-1").stdout
    assert "\x1b" not in text
    for part in ("# Items", "# Attempts", "# Checkpoints", "# Tool calls", "# LLM calls", "# Timeline"):
        assert part in text
    assert "attempt 1 lost: its worker stopped beating (crash 1)" in text
    assert "in doubt" in text


def test_evidence_is_checked_again_when_asked(agentos: Command, db: Database, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_text("x")
    eventful(db, artifact)
    held = agentos("show", "task-1", "--verify")
    assert held.returncode == 0
    assert "1 of 1 hold" in held.stdout
    artifact.unlink()
    refuted = agentos("show", "task-1", "--verify")
    assert refuted.returncode == 1
    assert "does not hold" in refuted.stdout
    assert shown(agentos, "--verify")["checkpoints"][0]["verdict"]["holds"] is False


def test_the_log_of_checks_is_shown_and_looking_adds_nothing_to_it(
    agentos: Command, db: Database, tmp_path: Path
) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_text("x")
    eventful(db, artifact)
    agentos("show", "task-1", "--verify")
    assert json.loads(agentos("show", "task-1", "--verdicts", "--json").stdout)["verdicts"] == []
    artifact.unlink()
    assert not CheckpointManager(db).verify_checkpoint("task-1#1")
    (check,) = json.loads(agentos("show", "task-1", "--verdicts", "--json").stdout)["verdicts"]
    assert (check["sequence_number"], check["holds"], check["host"]) == (1, False, host())
    assert check["claims"][0]["evidence_type"] == "artifact_exists"
    told = agentos("show", "task-1", "--verdicts").stdout
    assert "checkpoint 1" in told
    assert "does not hold" in told
    assert agentos("show", "nobody", "--verdicts").returncode == 5


def test_a_superseded_checkpoint_is_told_with_its_reason_and_fails_nothing(
    agentos: Command, db: Database, tmp_path: Path
) -> None:
    worker = eventful(db, tmp_path / "never made")
    lanes = db.run(workers.lanes_of(["default"], ["work"]))
    (item,) = db.run(items.claim(worker.worker_id, 0, [-lane for lane in lanes], 1)).items
    db.run(checkpoints.supersede(worker.fence(item), [(1, "the artifact is gone")]))
    db.run(checkpoints.note_resume(worker.fence(item), '{"sequence_number": 1, "rejected": 0, "host": "here"}'))
    done = agentos("show", "task-1", "--verify")
    assert done.returncode == 0
    assert "superseded" in done.stdout
    assert "the artifact is gone" in done.stdout
    assert [(a["attempt"], a["ended"], a["resumed_from"]) for a in shown(agentos)["attempts"]] == [
        (1, "crashed", None),
        (2, "running", 1),
    ]


def test_an_unknown_task_is_said_with_the_fix(agentos: Command, database_dsn: str) -> None:
    done = agentos("show", "task-9")
    assert done.returncode == 5
    assert "Fix: list the newest ones: agentos tasks" in done.stderr


def test_a_failed_attempt_that_will_be_made_again_is_told(agentos: Command, db: Database) -> None:
    db.run(tasks.submit("task-1", "work", "a title", "{}"))
    worker = HandWorker(db)
    worker.fail(worker.claim(), "first try", terminal=False)
    until(lambda: db.run(tasks.task_items("task-1"))[0].place == "scheduled")
    story = shown(agentos)
    assert [(a["attempt"], a["ended"], a["error"]["message"]) for a in story["attempts"]] == [
        (1, "failed", "first try")
    ]
