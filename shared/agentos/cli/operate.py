"""`agentos cancel`, `retry` and `approve`: what people do to tasks."""

import getpass
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import compact, out, print_json
from agentos.store.calls import coordinator, timeline, workers
from agentos.store.calls import tasks as calls
from agentos.store.connect import Database


def cancel(
    task: TaskId,
    reason: Annotated[str, typer.Option(help="Why; shown with the task.")] = "cancelled by request",
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Cancel a task. What has not started never will; what runs is told within a beat and ends.

    A task that has ended stays as it is. `agentos retry` opens a cancelled task again.

    \b
    Examples:
      agentos cancel task-123
      agentos cancel task-123 --reason 'wrong input'
    """
    with opened(dsn) as db:
        status = db.run(calls.cancel_task(task, reason))
    if json:
        print_json({"task_id": task, "status": status})
        return
    told = {"running": "is being cancelled: its running items have been told", "cancelled": "is cancelled"}
    out.print(f"{task} {told.get(status, f'had ended before: {status}')}")


def retry(task: TaskId, dsn: Dsn = None, json: AsJson = False) -> None:
    """Open the items of a failed or cancelled task again; those that completed stay completed.

    Their counters start at zero. Checkpoints, recorded tool calls and LLM outputs are kept, so the items go on from
    their last checkpoint that still holds. For a call in doubt: find out whether it happened before you retry.

    \b
    Examples:
      agentos retry task-123
      agentos show task-123      first: why did it fail?
    """
    with opened(dsn) as db:
        reopened = db.run(calls.retry_task(task))
        _wake(db, task)
    if json:
        print_json({"task_id": task, "items": reopened})
    else:
        out.print(f"{task}: {reopened} item(s) are open again")


def approve(
    task: TaskId,
    reject: Annotated[bool, typer.Option("--reject", help="Answer no.")] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who answers (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Answer what a task asks, so that it goes on: yes, or with --reject no.

    What it asks, and what it shows for it (such as a model's plan), is in `agentos show TASK`.

    \b
    Examples:
      agentos approve task-123 --by alice
      agentos approve task-123 --reject
    """
    with opened(dsn) as db:
        asked = [each for each in db.run(timeline.task_approvals(task)) if each.approved is None]
        answered = db.run(calls.answer(task, not reject, by or getpass.getuser()))
        _wake(db, task)
    if json:
        print_json({"task_id": task, "approved": not reject, "items": answered, "questions": asked})
        return
    for each in asked:
        out.print(f"{compact(each.question, 200)} {'no' if reject else 'yes'}")
    out.print(f"{task} goes on: {answered} item(s)")


def _wake(db: Database, task: str) -> None:
    items = [item.item_id for item in db.run(calls.task_items(task))]
    queues = db.run(coordinator.queues_of(items))
    db.run(workers.wake(queues))
