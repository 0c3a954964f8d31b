"""`agentos show`."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from shlex import quote
from typing import Annotated, Any

import typer

from agentos.cli.database import opened
from agentos.cli.exits import FAILED, OK
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import compact, duration, gist, out, print_json, print_table, size, styled
from agentos.cli.requests import print_requests
from agentos.cli.story import Attempt, Story, tell
from agentos.store.calls import timeline
from agentos.store.calls.blobs import task_bytes
from agentos.store.calls.checkpoints import require_item
from agentos.store.calls.ledger import LedgerEntry
from agentos.store.calls.timeline import Approval, CheckedEvidence, CheckpointSummary, Event


def show(
    task: TaskId,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the checkpoints' evidence again, here and now; 1 if some fails.")
    ] = False,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Only the log of the checks of its evidence: who looked, and found what.")
    ] = False,
    requests: Annotated[
        bool, typer.Option("--requests", help="Only what models were asked, whole, and what they answered.")
    ] = False,
    sizes: Annotated[bool, typer.Option("--bytes", help="Only what its records take.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many records of each kind.")] = 200,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Everything that happened to a task.

    Its items and where each is, the attempts and how they ended, checkpoints with their evidence, tool calls (replayed,
    repaired, in doubt), LLM calls (and how often their output was reused), and a timeline of it all. Evidence is not
    checked unless --verify asks for it; commands are never run again by it.

    \b
    Examples:
      agentos show task-123
      agentos show task-123 --verify
      agentos show task-123 --verdicts
      agentos show task-123 --requests
      agentos show task-123 --json | jq .tool_calls
    """
    if verdicts:
        return _print_verdicts(task, limit, dsn, as_json=json)
    if requests:
        return print_requests(task, limit, dsn, as_json=json)
    if sizes:
        return _print_bytes(task, dsn, as_json=json)
    with opened(dsn) as db:
        story = tell(db, task, limit=limit, verify=verify)
    if json:
        print_json(_as_json(story))
    else:
        _print(story)
    raise typer.Exit(FAILED if _refuted(story) else OK)


def _print_bytes(task: str, dsn: str | None, *, as_json: bool) -> None:
    with opened(dsn) as db:
        db.run(require_item(task, None))
        lines = db.run(task_bytes(task))
    if as_json:
        return print_json({"task_id": task, "bytes": lines})
    return print_table(("what", "records", "bytes"), [(line.what, line.count, size(line.bytes)) for line in lines])


def _print_verdicts(task: str, limit: int, dsn: str | None, *, as_json: bool) -> None:
    with opened(dsn) as db:
        db.run(require_item(task, None))
        checks = db.run(timeline.task_verdicts(task, limit))
    if as_json:
        return print_json({"task_id": task, "verdicts": [asdict(check) for check in checks]})
    columns = ("at", "of", "attempt", "host", "claim", "verdict", "reason", "took")
    return print_table(columns, [row for check in checks for row in _check(check)], title="Checks of evidence")


def _check(check: CheckedEvidence) -> Iterator[tuple[object, ...]]:
    """A line for the checkpoint or call, and one below it for each claim."""
    of = check.call if check.sequence_number is None else f"checkpoint {check.sequence_number}"
    yield check.at, of, check.attempt or "", check.host, "", _verdict(check.holds), compact(check.reason, 200), ""
    for claim in check.claims:
        name = claim.description or claim.evidence_type
        yield (
            "",
            "",
            "",
            "",
            compact(name, 60),
            _verdict(claim.holds),
            compact(claim.reason, 200),
            duration(claim.took_s),
        )
    if check.more:
        yield "", "", "", "", f"{check.more} more", "holds" if check.holds else "", "", ""


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def _refuted(story: Story) -> bool:
    """A superseded checkpoint was given up already; only what somebody would resume from counts."""
    kept = {each.sequence_number for each in story.checkpoints if each.superseded_at is None}
    return any(not verdict.holds for seq, verdict in story.verdicts.items() if seq in kept)


def _as_json(story: Story) -> dict[str, Any]:
    told = asdict(story)
    verdicts = told.pop("verdicts")
    for checkpoint in told["checkpoints"]:
        checkpoint["verdict"] = verdicts.get(checkpoint["sequence_number"])
    return told


def _print(story: Story) -> None:
    _print_head(story)
    items = [
        (story.name(i.item_id), i.kind, i.status or i.place, i.attempt or "", i.failures, i.crashes, _error(i.error))
        for i in story.items
    ]
    print_table(("item", "kind", "state", "attempt", "failures", "crashes", "error"), items, title="Items")
    print_table(
        ("item", "attempt", "ended", "from", "until", "took", "resumed from", "error"),
        [_attempt(story, each) for each in story.attempts],
        title="Attempts",
    )
    print_table(
        ("seq", "item", "type", "at", "snapshot", "evidence", "state", "reason"),
        [_checkpoint(story, each) for each in story.checkpoints],
        title="Checkpoints",
    )
    print_table(
        ("tool", "arguments", "item", "state", "exit", "ran", "replayed", "repaired", "at"),
        [_call(story, each) for each in story.tool_calls],
        title="Tool calls",
    )
    prompts = [
        (p.operation_type, p.model, story.name(p.item_id), p.state, p.generations, p.hits, p.prompt_tokens,
         p.completion_tokens, p.created_at, compact(p.prompt_preview, 50)) for p in story.llm_calls
    ]  # fmt: skip
    columns = ("operation", "model", "item", "state", "paid", "reused", "tokens in", "out", "at", "prompt")
    print_table(columns, prompts, title="LLM calls")
    print_table(("at", "item", "what"), list(_timeline(story)), title="Timeline")


def _print_head(story: Story) -> None:
    task, progress = story.task, story.progress
    out.print(task.task_id, styled(task.status), compact(task.title, 200))
    if task.reason:
        out.print(f"reason: {compact(task.reason, 1000)}")
    out.print(f"{progress.done} of {progress.done + progress.open} items done, {progress.held} running")
    if story.records_retired_at is not None:
        out.print(
            f"records were retired at {story.records_retired_at:%Y-%m-%d %H:%M}: what is told below is not all, and it "
            "takes no retry, rewind or fork; submit the work as a new task"
        )
    for asked in story.approvals:
        _print_question(task.task_id, asked)
    if progress.result is not None:
        out.print(f"result: {compact(progress.result, 2000)}")


def _print_question(task_id: str, asked: Approval) -> None:
    if asked.open:
        option = f" --option {'|'.join(asked.options)}" if asked.options else ""
        said = f"waits: agentos approve {quote(task_id)} {asked.question_id[:8]}{option}"
    elif asked.approved is None:
        said = "was not answered in time"
    else:
        said = (asked.option or "yes") if asked.approved else "no"
    by = f" by {asked.answered_by}" if asked.answered_by else ""
    out.print(f"asked: {compact(asked.question, 500)} {said}{by}")
    out.print(f"  about {compact(asked.shown, 2000)}")
    out.print(f"  sha256 {asked.shown_sha256}")


def _error(error: object) -> str:
    return gist(error.get("message", error) if isinstance(error, dict) else error or "", 80)


def _attempt(story: Story, each: Attempt) -> tuple[object, ...]:
    took = duration((each.ended_at - each.claimed_at).total_seconds()) if each.ended_at and each.claimed_at else ""
    resumed = f"checkpoint {each.resumed_from}" if each.resumed_from else ""
    name = story.name(each.item_id)
    return (name, each.attempt, each.ended, each.claimed_at, each.ended_at, took, resumed, _error(each.error))


def _checkpoint(story: Story, each: CheckpointSummary) -> tuple[object, ...]:
    verdict = story.verdicts.get(each.sequence_number)
    if each.superseded_at:
        state, reason = "superseded", each.superseded_reason
    elif verdict:
        state, reason = _verdict(verdict.holds), verdict.reason
    else:
        state, reason = "stored", ""
    claims = each.evidence.get("evidence_list", ()) if isinstance(each.evidence, dict) else ()
    evidence = ", ".join(str(claim.get("evidence_type")) for claim in claims)
    return (
        each.sequence_number, story.name(each.item_id), each.checkpoint_type, each.created_at,
        size(each.snapshot_bytes), evidence, state, compact(reason or "", 200),
    )  # fmt: skip


def _call(story: Story, each: LedgerEntry) -> tuple[object, ...]:
    state = "in doubt" if each.in_doubt else each.state
    return (
        each.tool_name, compact(each.arguments, 60), story.name(each.item_id), state, each.exit_code, each.executions,
        each.replays, each.repairs, each.begun_at,
    )  # fmt: skip


def _timeline(story: Story) -> list[tuple[datetime, str, str]]:
    return sorted(_moments(story), key=lambda moment: moment[0])


def _moments(story: Story) -> Iterator[tuple[datetime, str, str]]:
    yield story.task.created_at, "", "created"
    for event in story.events:
        yield event.at, story.name(event.item_id), _event(event)
    for attempt in story.attempts:
        if attempt.claimed_at:
            yield attempt.claimed_at, story.name(attempt.item_id), f"attempt {attempt.attempt} began"
    for item in story.items:
        if item.status and item.at:
            error = f": {_error(item.error)}" if item.error else ""
            yield item.at, story.name(item.item_id), f"{item.status}{error}"
    for checkpoint in story.checkpoints:
        told = f"checkpoint {checkpoint.sequence_number} {checkpoint.checkpoint_type}"
        yield checkpoint.created_at, story.name(checkpoint.item_id), told
    for call in story.tool_calls:
        told = f"{call.tool_name}({compact(call.arguments, 60)})"
        yield call.begun_at, story.name(call.item_id), told + (", in doubt" if call.in_doubt else "")
    for prompt in story.llm_calls:
        yield prompt.created_at, story.name(prompt.item_id), f"LLM {prompt.operation_type}: {prompt.model}"
    for asked in story.approvals:
        yield asked.asked_at, story.name(asked.item_id), f"asked: {compact(asked.question, 100)}"
    if story.task.finished_at:
        yield story.task.finished_at, "", story.task.status


def _event(event: Event) -> str:
    data, attempt = event.data, f"attempt {event.attempt}"
    match event.event:
        case "lease_reclaimed":
            return f"{attempt} lost: its worker stopped beating (crash {data.get('crashes')})"
        case "attempt_failed":
            due = f"; next try at {data['next_try_at'][:19]}" if data.get("next_try_at") else ""
            why = f" ({data['why']})" if data.get("why") else ""
            return f"{attempt} failed: {_error(data)}{due}{why}"
        case "resumed":
            return f"{attempt} resumed from checkpoint {data.get('sequence_number')} on {data.get('host')}"
        case "checkpoint_superseded":
            return f"checkpoint {data.get('sequence_number')} superseded: {compact(data.get('reason', ''), 150)}"
        case "evidence_checked":
            of = data.get("call") or f"checkpoint {data.get('sequence_number')}"
            return f"{of} {_verdict(data['holds'])} on {data.get('host')}: {compact(data.get('reason', ''), 120)}"
        case _:
            return f"{event.event} {compact(data, 150) if data else ''}".strip()
