"""`agentos cron`: tasks by the calendar."""

from dataclasses import asdict
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import err, out, print_json, print_table
from agentos.core.app.cron import declare
from agentos.core.calendar import schedule
from agentos.core.task_id import new_task_id
from agentos.core.wake import waker_of
from agentos.store.calls import cron as calls
from agentos.store.calls.cron import CronRow
from agentos.store.connect import Database
from agentos.store.errors import UnknownCron
from agentos.store.run import drive
from agentos.worker.options import load_app

cron = typer.Typer(
    help="""Tasks by the calendar: what apps declare with @app.cron.

    A worker declares the entries of its app when it starts; the leading coordinator fires them.

    \b
    Examples:
      agentos cron list
      agentos cron run nightly-report
      agentos cron pause nightly-report
      agentos cron list --json | jq -r '.entries[] | select(.paused) | .name'
    """,
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `agentos cron list` tells it.")]


@cron.command("list")
def list_entries(dsn: Dsn = None, json: AsJson = False) -> None:
    """All entries: when they come next, which task was last, and what was skipped."""
    with opened(dsn) as db:
        found = db.run(calls.list_cron())
    if json:
        print_json({"entries": [asdict(each) for each in found]})
        return
    if not found:
        err.print(
            "there is none; declare one with @app.cron, and start a worker (or: agentos cron register --app m:app)"
        )
    columns = ("name", "schedule", "zone", "kind", "state", "next", "last task", "skipped")
    print_table(columns, [_row(each) for each in found], fold=False)


def _row(each: CronRow) -> tuple[object, ...]:
    state = "paused" if each.paused else "on" if each.declared else "undeclared"
    return (
        each.name, each.expression, each.timezone, each.kind, state, "" if each.paused else each.next_at,
        each.last_task, each.skipped,
    )  # fmt: skip


@cron.command()
def run(name: Name, dsn: Dsn = None, json: AsJson = False) -> None:
    """Make the task of an entry now, paused or not; its next time stays."""
    task_id = f"cron-{name}-{new_task_id().removeprefix('task-')}"
    with opened(dsn) as db:
        db.run(calls.run_cron(name, task_id))
        waker_of(db).wake(_entry(db, name).queue)
    if json:
        print_json({"task_id": task_id})
        return
    out.print(task_id)


@cron.command()
def pause(name: Name, dsn: Dsn = None, json: AsJson = False) -> None:
    """Fire an entry no more until it is resumed, whatever its app declares."""
    with opened(dsn) as db:
        db.run(calls.pause_cron(name))
    _said(name, "paused", as_json=json)


@cron.command()
def resume(name: Name, dsn: Dsn = None, json: AsJson = False) -> None:
    """Go on with an entry; what came while it was paused is not made up for."""
    with opened(dsn) as db:
        entry = _entry(db, name)
        next_at = schedule(entry.expression, entry.timezone).after(entry.now)
        db.run(calls.resume_cron(name, next_at))
    _said(name, "on", as_json=json)


@cron.command()
def remove(name: Name, dsn: Dsn = None, json: AsJson = False) -> None:
    """Forget an entry; its tasks stay. One that an app still declares is back with its next worker."""
    with opened(dsn) as db:
        db.run(calls.remove_cron(name))
    _said(name, "removed", as_json=json)


@cron.command()
def register(
    app: Annotated[str, typer.Option(help="Where your App is: module:name.")], dsn: Dsn = None, json: AsJson = False
) -> None:
    """Declare the entries of an app without a worker, as a worker does when it starts."""
    entries = load_app(app).cron_entries
    with opened(dsn) as db:
        taken = drive(db, declare(tuple(entries.values())))
    if json:
        print_json({"entries": sorted(entries), "taken": taken})
        return
    out.print(f"{taken} of {len(entries)} entries declared: {', '.join(sorted(entries)) or 'the app has none'}")


def _entry(db: Database, name: str) -> CronRow:
    for entry in db.run(calls.list_cron()):
        if entry.name == name:
            return entry
    raise UnknownCron(f"there is no cron entry {name!r}", hint="see which there are: agentos cron list")


def _said(name: str, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "state": state})
        return
    out.print(f"{name}: {state}")
