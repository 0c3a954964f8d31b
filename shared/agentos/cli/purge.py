"""`agentos purge`."""

import getpass
import sys
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import err, out, print_json, print_table, size
from agentos.store.calls.blobs import task_bytes
from agentos.store.calls.checkpoints import require_item
from agentos.store.calls.purge import purge_task
from agentos.store.errors import InvalidInput


def purge(
    task: TaskId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who wants it (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Take away what a task and its child tasks were about; what happened stays. It cannot be undone.

    Gone are payloads, results, snapshots and evidence, arguments and results of tools, model outputs, questions,
    signals and log lines. Times, states, hashes, counts, tokens and costs, and who answered, stay: `agentos show` tells
    them. Only of tasks that have ended. Backups, and artifacts in AGENTOS_ARTIFACTS, are yours to delete.

    \b
    Examples:
      agentos purge task-123
      agentos purge task-123 --yes --by compliance
    """
    with opened(dsn) as db:
        db.run(require_item(task, None))
        if not yes:
            _ask(task, [(line.what, line.count, size(line.bytes)) for line in db.run(task_bytes(task))])
        count = db.run(purge_task(task, by or getpass.getuser()))
    if json:
        print_json({"task_id": task, "tasks": count})
        return
    out.print(f"{task} is purged" + (f", with {count - 1} child task(s)" if count > 1 else ""))


def _ask(task: str, rows: list[tuple[str, int, str]]) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput(f"purging {task} cannot be undone, and nobody can be asked here", hint="say --yes")
    print_table(("what", "records", "bytes"), rows, title=f"Content of {task}")
    if not typer.confirm("Take it away for ever?"):
        err.print("nothing was changed")
        raise typer.Abort
