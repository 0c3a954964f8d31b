"""`agentos tasks`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import ago, compact, duration, err, gist, print_json, print_table
from agentos.store.calls.tasks import TaskRow, list_tasks, unserved
from agentos.store.connect import Database

STATUSES = ("created", "running", "paused", "waiting", "completed", "failed", "cancelled")


def _known(status: str | None) -> str | None:
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"{status!r} is not one of {', '.join(STATUSES)}")
    return status


def tasks(
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", callback=_known, help="Only tasks of this status.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 30,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """List the newest tasks, newest first.

    Status: created (nothing of it has started), running, paused, waiting (for a person), completed, failed, cancelled.

    \b
    Examples:
      agentos tasks
      agentos tasks --status failed --limit 5
      agentos tasks --json | jq -r '.tasks[0].task_id'
    """
    with opened(dsn) as db:
        found = with_reasons(db, db.run(list_tasks(limit, status)))
    if json:
        print_json({"tasks": found})
        return
    if not found:
        err.print("no tasks" + (f" are {status}" if status else " yet: agentos submit --help"))
    columns = ("task", "status", "kind", "title", "created", "took", "reason")
    print_table(columns, [_row(task) for task in found], fold=False)


def with_reasons(db: Database, found: Sequence[TaskRow]) -> tuple[TaskRow, ...]:
    """Of those that wait for a worker that does not live, the reason says so."""
    asked = [task.task_id for task in found if task.reason is None and task.status in ("created", "running")]
    why = db.run(unserved(asked)) if asked else {}
    return tuple(replace(task, reason=why[task.task_id].reason) if task.task_id in why else task for task in found)


def _row(task: TaskRow) -> tuple[object, ...]:
    took = duration((task.finished_at - task.created_at).total_seconds()) if task.finished_at else ""
    kind = task.kind or ""
    title = "" if task.title == kind else compact(task.title, 50)
    return (task.task_id, task.status, kind, title, ago(task.created_at), took, gist(task.reason or "", 80))
