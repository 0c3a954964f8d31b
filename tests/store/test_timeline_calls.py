"""What people read: a task's timeline, the workers, and what is wrong."""

from typing import Any

from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import cache, checkpoints, items, ledger, tasks, timeline, waits, workers
from agentos.store.canonical import canonical_text


def test_a_tasks_timeline_tells_everything_in_the_order_it_happened(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=3600)
    fence = worker.fence(worker.claim()[0])
    for n in (1, 2):
        runner.run(
            checkpoints.commit_checkpoint(
                engine.checkpoint(item_id=fence.item_id, ordinal=n, evidence='[{"e":1}]'), fence
            )
        )
    runner.run(checkpoints.supersede(fence, [(2, "the file is gone")]))
    clock.advance(1)
    runner.run(checkpoints.note_resume(fence, '{"sequence_number":1}'))
    clock.advance(1)
    runner.run(items.fail(fence, engine.ERROR))
    events = runner.run(timeline.task_events("task-1"))
    assert [event.event for event in events] == ["checkpoint_superseded", "resumed", "attempt_failed"]
    assert events[0].data == {"sequence_number": 2, "reason": "the file is gone"}
    assert (events[1].attempt, events[1].worker_id) == (1, worker.worker_id)
    assert [event.event for event in runner.run(timeline.task_events("task-1", 1))] == ["attempt_failed"]
    first, second = runner.run(timeline.task_checkpoints("task-1"))
    assert (first.sequence_number, first.snapshot_bytes, first.evidence, first.attempt) == (1, 2, [{"e": 1}], 1)
    assert (second.superseded_reason, second.superseded_at is None) == ("the file is gone", False)


def test_checks_of_evidence_are_kept_without_a_fence_and_read_oldest_first(runner: Driver) -> None:
    engine.submit(runner)
    claim = {
        "place": 0,
        "evidence_type": "db_row",
        "description": "d",
        "holds": False,
        "reason": "no row",
        "took_s": 0.5,
    }
    found = {"host": "h", "holds": False, "reason": "0 of 1 hold", "claims": [claim], "more": 2}
    runner.run(checkpoints.keep_verdict("task-1", None, None, None, canonical_text({"sequence_number": 3, **found})))
    runner.run(checkpoints.keep_verdict("task-1", 1, 7, 2, canonical_text({"call": "bash(ls)", **found})))
    first, second = runner.run(timeline.task_verdicts("task-1"))
    assert (first.sequence_number, first.call, first.attempt, first.host, first.more) == (3, None, None, "h", 2)
    assert (second.sequence_number, second.call, second.attempt, second.worker_id) == (None, "bash(ls)", 2, 7)
    assert first.claims == (timeline.CheckedClaim(0, "db_row", "d", False, "no row", 0.5),)
    assert runner.run(timeline.task_verdicts("task-1", 1)) == (second,)


def test_a_tasks_prompts_and_questions_are_told(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    prompt = cache.PromptIdentity("prompt-1", "task-1", "plan", "a-model", "0" * 64, "Plan: tea")
    asked = runner.run(cache.cache_begin(prompt, fence, worker.worker_id, 60))
    assert asked.call_token is not None
    runner.run(cache.cache_finish(prompt, asked.call_token, fence, worker.worker_id, '"tea"', cache.Spent(3, 4)))
    (told,) = runner.run(timeline.task_prompts("task-1"))
    assert (told.operation_type, told.model, told.state, told.prompt_preview) == (
        "plan",
        "a-model",
        "ready",
        "Plan: tea",
    )
    assert (told.prompt_tokens, told.completion_tokens, told.generations, told.hits) == (3, 4, 1, 0)
    runner.run(engine.ask(fence, "publish?", '{"n":1}'))
    (question,) = runner.run(timeline.task_approvals("task-1"))
    assert (question.question, question.shown, question.approved) == ("publish?", {"n": 1}, None)
    runner.run(waits.answer("task-1", approved=False, by="ana"))
    (question,) = runner.run(timeline.task_approvals("task-1"))
    assert (question.approved, question.answered_by) == (False, "ana")


def test_workers_are_listed_with_what_they_hold_and_late_ones_as_late(runner: Driver, clock: Any) -> None:
    engine.submit(runner)
    worker = engine.register(runner, ttl_s=15)
    worker.claim()
    stopped = engine.register(runner)
    runner.run(workers.retire_worker(stopped.worker_id, "stopped"))
    (row,) = runner.run(timeline.list_workers())
    assert (row.worker_id, row.state, row.held, row.ttl_s) == (worker.worker_id, "alive", 1, 15)
    assert row.serves == {"queues": ["default"], "kinds": ["shell"], "concurrency": 8}
    clock.advance(16)
    assert {(r.worker_id, r.state) for r in runner.run(timeline.list_workers(60))} == {
        (worker.worker_id, "late"),
        (stopped.worker_id, "stopped"),
    }


def test_findings_name_what_is_wrong_and_are_empty_when_nothing_is(runner: Driver, clock: Any) -> None:
    def found() -> dict[str, list[dict[str, Any]]]:
        grouped: dict[str, list[dict[str, Any]]] = {}
        for finding in runner.run(timeline.findings()):
            grouped.setdefault(finding.finding, []).append(finding.data)
        grouped.pop("not_durable", None)  # the tests' own server is set so
        grouped.pop("clock_shifted", None)  # and its clock is moved
        return grouped

    assert found() == {}
    engine.submit(runner, kind="nobody-does-this")
    (unroutable,) = found()["unroutable"]
    assert unroutable["kind"] == "nobody-does-this"
    assert unroutable["served"] == []
    worker = engine.register(runner, kinds=["nobody-does-this"], ttl_s=15)
    assert found() == {}
    fence = worker.fence(worker.claim()[0])
    call = engine.tool_call(item_id=fence.item_id)
    runner.run(ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60))
    clock.advance(20)
    wrong = found()
    assert set(wrong) == {"late_worker", "orphaned_lease", "nobody_leads", "in_doubt"}
    assert wrong["orphaned_lease"][0]["task_id"] == "task-1"
    assert wrong["in_doubt"][0]["tool"] == "bash"
    runner.run(workers.lead("coordinator", 1, 15))
    assert runner.run(timeline.is_led("coordinator"))
    runner.run(workers.reclaim())
    again = engine.register(runner, kinds=["nobody-does-this"])
    (item,) = again.claim_solo()
    runner.run(engine.ask(again.fence(item), "really?", "{}"))
    assert set(found()) == {"in_doubt", "awaits_approval"}
    clock.advance(6 * 86_400)
    assert {data["parent"] for data in found()["partitions_short"]} == {"outcomes", "events"}
    runner.run(workers.ensure_partitions())
    assert "partitions_short" not in found()


def test_progress_and_items_of_a_task_without_items_are_empty(runner: Driver) -> None:
    runner.run(tasks.create_task("task-1", "a title"))
    progress = runner.run(tasks.task_progress("task-1"))
    assert (progress.open, progress.done, progress.held, progress.kinds, progress.single) == (0, 0, 0, (), False)
    assert runner.run(tasks.task_items("task-1")) == ()
    assert runner.run(tasks.misplaced_items()) == ()
