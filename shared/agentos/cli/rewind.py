"""`agentos rewind` and `agentos dead`: going back, and what failed."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import compact, err, out, print_json, print_table
from agentos.core.rewind import Rewind, RewoundCall
from agentos.core.rewind import rewind as go_back
from agentos.store.calls.rewind import DeadTask, dead_tasks
from agentos.store.canonical import loads
from agentos.store.errors import InvalidInput
from agentos.store.run import drive


def rewind(
    task: TaskId,
    to: Annotated[int, typer.Option("--to", metavar="SEQ", min=0, help="The checkpoint's number; 0: the beginning.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would become of what.")] = False,
    replay: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Its recorded calls replay (so do those not named).")
    ] = None,
    re_execute: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Its calls are executed again, under new idempotency keys.")
    ] = None,
    stub: Annotated[
        list[str] | None, typer.Option(metavar="TOOL=JSON", help="Its recorded calls return this instead.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who wants it (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Go back to a checkpoint of a task; it goes on from there. Refused while it runs: cancel it first.

    Later checkpoints are superseded, and what completed later is open again. What tools did in the world is not undone:
    by default every recorded call replays when the program makes it again. Try --dry-run first: it lists the calls
    that were made after the checkpoint and what becomes of each. Model outputs are kept.

    \b
    Examples:
      agentos rewind task-123 --to 4 --dry-run
      agentos rewind task-123 --to 4 --re-execute bash --stub charge='{"charged": 1}'
      agentos show task-123      first: which checkpoints are there?
    """
    with opened(dsn) as db:
        flow = go_back(
            task, to, dry_run=dry_run, replay=replay or (), re_execute=re_execute or (), stub=stubs(stub or []), by=by
        )
        told = drive(db, flow)
    if json:
        print_json(told)
    else:
        _print(told)


def stubs(given: list[str]) -> dict[str, Any]:
    """What --stub was given, by tool. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for each in given:
        tool, separator, text = each.partition("=")
        if not separator or tool in found:
            raise InvalidInput(
                f"--stub {each} is not TOOL=JSON, or names a tool again", hint="""charge='{"ok": true}'"""
            )
        try:
            found[tool] = loads(text, what="the stub")
        except ValueError as error:
            raise InvalidInput(f"the stub of {tool} is not JSON: {error}", hint="""charge='{"ok": true}'""") from error
    return found


def print_calls(calls: Sequence[RewoundCall], title: str) -> None:
    """Each call, and what becomes of it."""
    rows = [
        (each.call.tool_name, compact(each.call.arguments, 80), each.call.item_key or each.call.item_id,
         each.call.state, each.call.begun_at, _said(each.becomes, each.call.on_doubt)) for each in calls
    ]  # fmt: skip
    print_table(("tool", "arguments", "item", "state", "at", "becomes"), rows, title=title)


def _print(told: Rewind) -> None:
    print_calls(told.calls, f"Calls after checkpoint {told.to}")
    if not told.calls:
        err.print(f"no call is recorded after checkpoint {told.to}")
    many = f"{len(told.checkpoints)} checkpoint(s) superseded, {len(told.items)} item(s) open again"
    if told.done:
        out.print(f"{told.task_id} goes on from checkpoint {told.to}: {many}")
        return
    out.print(f"nothing was changed; it would be: {many}")
    out.print("recorded calls replay unless --re-execute TOOL or --stub TOOL=JSON says otherwise")


def _said(becomes: str, on_doubt: str) -> str:
    return {
        "carried_over": "carried over: it came before",
        "runs_again": "runs again: it failed",
        "in_doubt": f"in doubt: {on_doubt}",
        "executed_again": "executed again, new idempotency key",
        "waits_again": "waited for again",
    }.get(becomes, becomes)


def dead(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the newest.")] = 50,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """List the tasks that failed, why, and what `agentos retry` would do with each.

    \b
    Examples:
      agentos dead
      agentos dead --json | jq -r '.tasks[].task_id'
    """
    with opened(dsn) as db:
        found = db.run(dead_tasks(limit))
    if json:
        print_json({"tasks": found})
        return
    if not found:
        err.print("no task has failed")
    rows = [
        (each.task_id, each.kind, each.finished_at, compact(each.reason or "", 200), _retry(each)) for each in found
    ]
    print_table(("task", "kind", "failed", "reason", "a retry"), rows, title="Failed tasks")


def _retry(each: DeadTask) -> str:
    said = [f"opens {each.items} item(s)"]
    if each.quarantined:
        said.append(f"{each.quarantined} quarantined")
    said.append(f"from checkpoint {each.checkpoint}" if each.checkpoint else "from the beginning")
    said.append(f"{each.replays} recorded call(s)")
    if each.in_doubt:
        said.append(f"{each.in_doubt} in doubt")
    if each.questions:
        said.append(f"answer {each.questions} first: agentos doubts {each.task_id}")
    return ", ".join(said)
