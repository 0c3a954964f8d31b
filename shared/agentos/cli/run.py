"""`agentos run`."""

import time
from datetime import UTC, datetime
from shlex import quote
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from agentos.cli.database import opened
from agentos.cli.follow import follow, followed, tell_end, tell_if_nobody_serves
from agentos.cli.options import AsJson, Dsn, Priority, Timeout
from agentos.cli.output import duration, err, gist, make_table, out
from agentos.cli.products import produced
from agentos.core.plan import load_plan, to_items
from agentos.core.tracing import setup as tracing
from agentos.core.tracing.submitting import submitting
from agentos.store.calls import tasks, workers
from agentos.store.calls.tasks import ItemRow, TaskProgress
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import DatabaseUnavailable

SHOWN = 30


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The plan: YAML or JSON.")],
    task_id: Annotated[str | None, typer.Option(metavar="ID", help="The task's id (default: a new one).")] = None,
    queue: Annotated[str, typer.Option(help="Which workers may take it.")] = "default",
    priority: Priority = 0,
    timeout: Timeout = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Submit the items of a plan file as one task, and follow it to its end. Exit code 1 if it fails.

    The plan is checked first, with line numbers in its errors; nothing is created unless all of it is right. Ctrl-C
    ends the following, not the task: `agentos wait` follows it again. At the end: what each item produced.

    \b
    Examples:
      agentos run examples/build.yaml
      agentos run plan.json --task-id nightly --timeout 3600 --json
    """
    plan = load_plan(file)
    items = to_items(plan)
    task_id = task_id or f"task-{uuid4().hex}"
    started = time.monotonic()
    tracing.install("agentos")
    with opened(dsn) as db:
        text = canonical_text(items, what="the items of the plan")
        call = tasks.create_task(task_id, plan.title, queue=queue, items=text, priority=priority)
        with submitting("plan", queue, [task_id]) as carry:
            db.run(carry(call) if carry else call)
        tracing.flush()
        queues = {item.queue or queue for item in plan.items}
        db.run(workers.wake(sorted(queues)))
        with followed(task_id):
            err.print(f"{task_id}: {len(items)} item(s), {plan.title}")
            for name in sorted(queues):
                tell_if_nobody_serves(db, name, {item.kind for item in plan.items if (item.queue or queue) == name})
            progress = _watch(db, task_id, timeout_s=timeout, live=out.is_terminal and not json)
        products = produced(db, task_id)
    took_s = time.monotonic() - started
    raise typer.Exit(tell_end(task_id, progress, took_s=took_s, as_json=json, products=products))


def _watch(db: Database, task_id: str, *, timeout_s: float | None, live: bool) -> TaskProgress:
    if not live:
        return follow(db, task_id, timeout_s=timeout_s, changed=_Lines(db, task_id))
    with Live(console=out, refresh_per_second=8, transient=False) as screen:

        def show(progress: TaskProgress) -> None:
            screen.update(_picture(task_id, progress, _items(db, task_id)))

        return follow(db, task_id, timeout_s=timeout_s, changed=show)


def _items(db: Database, task_id: str) -> tuple[ItemRow, ...]:
    try:
        return db.run(tasks.task_items(task_id))
    except DatabaseUnavailable:  # `follow` says so and looks again
        return ()


def _state(item: ItemRow) -> str:
    """Where it is, and for the ended ones how they ended."""
    return item.status or item.place


def _picture(task_id: str, progress: TaskProgress, items: tuple[ItemRow, ...]) -> Group:
    """Running and waiting ones first when there are too many to show."""
    shown = sorted(items, key=lambda item: (item.status == "completed", item.seq))[:SHOWN]
    rows = [_row(item) for item in sorted(shown, key=lambda item: item.seq)]
    below = [f"{progress.done} of {progress.done + progress.open} done, {progress.held} running"]
    if len(items) > SHOWN:
        below.append(f"{len(items) - SHOWN} more are not shown")
    if progress.status == "waiting":
        below.append(f"answer it: agentos approve {quote(task_id)}")
    columns = ("item", "kind", "state", "attempt", "time", "error")
    return Group(make_table(columns, rows), Text(", ".join(below)))


def _row(item: ItemRow) -> tuple[object, ...]:
    error = gist(item.error.get("message", ""), 80) if isinstance(item.error, dict) else ""
    if item.claimed_at and item.at and item.status:
        took = duration((item.at - item.claimed_at).total_seconds())
    else:
        took = duration((datetime.now(UTC) - item.at).total_seconds()) if item.place == "held" and item.at else ""
    return (item.key or item.item_id, item.kind, _state(item), item.attempt or "", took, error)


class _Lines:
    """Without a terminal: a line for each change of an item, on stderr."""

    def __init__(self, db: Database, task_id: str) -> None:
        self._db, self._task_id = db, task_id
        self._known: dict[int, tuple[str, int]] = {}
        self._waited = False

    def __call__(self, progress: TaskProgress) -> None:
        for item in _items(self._db, self._task_id):
            now = (_state(item), item.attempt)
            if self._known.get(item.item_id) != now:
                self._known[item.item_id] = now
                attempt = f", attempt {item.attempt}" if item.attempt else ""
                moment = datetime.now().astimezone().strftime("%H:%M:%S")
                err.print(f"{moment} {item.key or item.item_id}: {now[0]}{attempt}")
        if progress.status == "waiting" and not self._waited:
            err.print(f"answer it: agentos approve {quote(self._task_id)}")
        self._waited = progress.status == "waiting"
