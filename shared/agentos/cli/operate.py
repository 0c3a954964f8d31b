"""`agentos cancel`, `pause`, `resume`, `retry`, `approve` and `signal`: what people do to tasks."""

import getpass
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import compact, out, print_json
from agentos.cli.questions import chosen_question, print_questions, questions_of
from agentos.core.app.handle import answer
from agentos.core.app.handle import resume as end_pause
from agentos.core.app.handle import retry as reopen
from agentos.core.app.handle import signal as send
from agentos.store.calls import tasks as calls
from agentos.store.calls import timeline
from agentos.store.canonical import loads
from agentos.store.run import drive


def cancel(
    task: TaskId,
    reason: Annotated[str, typer.Option(help="Why; shown with the task.")] = calls.CANCELLED,
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


def pause(task: TaskId, dsn: Dsn = None, json: AsJson = False) -> None:
    """Let nothing of a task, nor of its children, begin until `agentos resume`.

    What runs is told within a beat and parked at its next recorded call or after its next checkpoint; a handler that
    comes to neither goes on, and its completion counts. Signals and answers are kept, time goes on: a deadline still
    ends the task. A task that has ended stays as it is.

    \b
    Examples:
      agentos pause task-123
      agentos resume task-123
    """
    with opened(dsn) as db:
        status = db.run(calls.pause_task(task))
    if json:
        print_json({"task_id": task, "status": status})
        return
    told = {"running": "is being paused: its running items have been told", "paused": "is paused"}
    out.print(f"{task} {told.get(status, f'had ended before: {status}')}")


def resume(task: TaskId, dsn: Dsn = None, json: AsJson = False) -> None:
    """End the pause of a task and of its children: what was parked for it is ready again.

    \b
    Examples:
      agentos resume task-123
    """
    with opened(dsn) as db:
        woken = drive(db, end_pause(task))
        status = db.run(calls.task_progress(task)).status
    if json:
        print_json({"task_id": task, "status": status, "items": len(woken)})
    else:
        out.print(f"{task} is not paused; {len(woken)} item(s) are ready again")


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
        reopened = drive(db, reopen(task))
    if json:
        print_json({"task_id": task, "items": reopened})
    else:
        out.print(f"{task}: {reopened} item(s) are open again")


def approve(
    task: TaskId,
    which: Annotated[
        str | None,
        typer.Argument(metavar="[QUESTION]", help="Which one: its number, or how its id begins. With one open: none."),
    ] = None,
    *,
    question: Annotated[str | None, typer.Option(metavar="ID", help="The same, as an option.")] = None,
    option: Annotated[
        str | None, typer.Option(metavar="OPTION", help="What is chosen, when there are options.")
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Answer no.")] = False,
    shown: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Hash of what you looked at; refused if it is not that now.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only list what TASK has asked, with numbers.")] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who answers (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Answer what a task asks, so that it goes on: yes, or with --reject no.

    With one open question nothing else has to be said. With several: its number in --list, which stays the same however
    many are answered, or how its id begins. What it shows (such as a model's plan) and its hash are in `agentos show
    TASK`. An answer counts for exactly what was shown.

    \b
    Examples:
      agentos approve task-123 --by alice
      agentos approve task-123 --list
      agentos approve task-123 2 --option later
      agentos approve task-123 3fa8 --reject
    """
    with opened(dsn) as db:
        asked = questions_of(db, task)
        if list_:
            return print_questions(task, asked, as_json=json)
        meant = chosen_question(task, asked, which, question)
        answered = drive(db, answer(task, not reject, by or getpass.getuser(), option, meant, shown))
        asked = tuple(each for each in db.run(timeline.task_approvals(task)) if each.question_id == answered)
    if json:
        return print_json({"task_id": task, "approved": not reject, "questions": asked})
    for each in asked:
        out.print(f"{compact(each.question, 200)} {'no' if reject else option or 'yes'}")
    return out.print(f"{task} goes on")


def signal(
    task: TaskId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the task waits for: ctx.wait_for(NAME).")],
    payload: Annotated[str, typer.Argument(metavar="[JSON]", help="What it gets; default null.")] = "null",
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Send a signal to a task. One that comes before the task waits for it is kept; one signal ends one wait.

    \b
    Examples:
      agentos signal task-123 paid
      agentos signal task-123 paid '{"amount": 12}'
    """
    value = loads(payload, what="JSON")
    with opened(dsn) as db:
        woken = drive(db, send(task, name, value))
    if json:
        print_json({"task_id": task, "signal": name, "woken": len(woken)})
    else:
        out.print(f"{task} has the signal {name}{' and goes on' if woken else '; nothing waits for it yet'}")
