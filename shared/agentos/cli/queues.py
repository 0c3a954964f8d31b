"""`agentos queue`: what queues hold, and whether they stand still."""

import getpass
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import err, out, print_json, print_table
from agentos.store.calls import flow, workers
from agentos.store.calls.flow import QueueRow

COUNTED = 10_000
Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]

queue = typer.Typer(
    help="""Look at queues; let one stand still, or go on.

    A paused queue takes submits, and nothing of it is claimed by any worker; what runs goes on to its end. A task run
    by hand (TaskRunner) is not held up.

    \b
    Examples:
      agentos queue list --json
      agentos queue pause reports
      agentos queue resume reports
    """,
    no_args_is_help=True,
)


@queue.command("list")
def list_(dsn: Dsn = None, json: AsJson = False) -> None:
    """List the queues: ready and held items (counted to 10,000), tenants, and who paused it when."""
    with opened(dsn) as db:
        found = db.run(flow.list_queues(COUNTED))
    if json:
        print_json({"queues": found, "counted_to": COUNTED})
        return
    if not found:
        err.print("there is no queue yet: a worker or the first submit makes one")
    print_table(("queue", "state", "ready", "held", "tenants", "lanes", "paused by"), [_row(each) for each in found])


def _row(row: QueueRow) -> tuple[object, ...]:
    ready = f"{COUNTED}+" if row.ready >= COUNTED else row.ready
    state = "running" if row.paused_at is None else "paused"
    by = f"{row.paused_by or 'somebody'}, {row.paused_at:%Y-%m-%d %H:%M}" if row.paused_at is not None else ""
    return (row.queue, state, ready, row.held, row.tenants, row.lanes, by)


@queue.command()
def pause(
    name: Queue,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who wants it (default: this user).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """From now on no worker claims from it. Said of a queue that does not exist yet, it holds when it does."""
    with opened(dsn) as db:
        done = db.run(flow.pause_queue(name, by or getpass.getuser()))
    _tell(name, json, paused=True, changed=done)


@queue.command()
def resume(name: Queue, dsn: Dsn = None, json: AsJson = False) -> None:
    """Let workers claim from it again."""
    with opened(dsn) as db:
        done = db.run(flow.resume_queue(name))
        db.run(workers.wake([name]))
    _tell(name, json, paused=False, changed=done)


def _tell(name: str, json: bool, *, paused: bool, changed: bool) -> None:
    if json:
        print_json({"queue": name, "paused": paused, "changed": changed})
    else:
        out.print(
            f"queue {name} {'is' if changed else 'was'} {'' if paused else 'not '}paused{'' if changed else ' before'}"
        )
