"""`agentos follow`: a task's events as they come."""

import json as json_
from shlex import quote
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.exits import FAILED, OK
from agentos.cli.follow import followed
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import compact, err, gist, out, plain, styled
from agentos.core.app.handle import follow as events_of
from agentos.store.calls.stream import BEGINNING, StreamEvent
from agentos.store.calls.tasks import TaskProgress, task_progress

GIST = 300


def follow(
    task: TaskId,
    after: Annotated[str, typer.Option(metavar="CURSOR", help="Go on after this event (see --json).")] = BEGINNING,
    tokens: Annotated[bool, typer.Option(help="Also print a model's output as it comes.")] = True,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Print what happens to a task, in order and as it happens, until it has ended.

    Attempts that failed or crashed, waits and answers, and what its handlers tell with ctx.progress, ctx.log and
    streaming models. With --json one object a line, each with a `cursor`: whoever starts again with --after CURSOR
    misses nothing and sees nothing twice. Ctrl-C ends the following, not the task.

    Exit code 0 if the task completed, 1 if it failed or was cancelled, 5 if there is no such task.

    \b
    Examples:
      agentos follow task-123
      agentos follow task-123 --json | jq 'select(.event == "progress") | .data'
    """
    printer = _Printer(as_json=json)
    with opened(dsn) as db:
        with followed(task):
            for event in events_of(db, task, after):
                if tokens or event.event != "tokens":
                    printer.show(event)
        progress = db.run(task_progress(task))
    raise typer.Exit(printer.end(task, progress))


class _Printer:
    """Lines, with a model's tokens run on: they are pieces of one text."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._open = False

    def show(self, event: StreamEvent) -> None:
        if self._as_json:
            print(json_.dumps(plain(event), ensure_ascii=False), flush=True)
        elif event.event == "tokens":
            out.print(str(event.data.get("text", "")), end="")
            self._open = True
        else:
            self._close()
            out.print(f"{event.at:%H:%M:%S}", styled(event.event), event.key or "", told(event))

    def end(self, task_id: str, progress: TaskProgress) -> int:
        """The last line; the exit code."""
        self._close()
        ok = progress.status == "completed"
        if not self._as_json:
            out.print(styled(progress.status), task_id, "" if ok else gist(progress.reason or "", GIST))
            if not ok:
                err.print(f"see all of it: agentos show {quote(task_id)}")
        return OK if ok else FAILED

    def _close(self) -> None:
        if self._open:
            out.print()
            self._open = False


def told(event: StreamEvent) -> str:
    """What an event says, in a line."""
    data = event.data if isinstance(event.data, dict) else {}
    if event.event == "progress":
        of = f" of {data['total']:g}" if data.get("total") is not None else ""
        return f"{data.get('done', 0):g}{of} {data.get('message', '')}".strip()
    if event.event == "log":
        fields = " ".join(f"{name}={compact(value)}" for name, value in data.get("fields", {}).items())
        level = "" if data.get("level") == "info" else f"{data.get('level')}: "
        return gist(f"{level}{data.get('message', '')} {fields}".strip(), GIST)
    return gist(str(data.get("message") or (compact(event.data) if event.data else "")), GIST)
