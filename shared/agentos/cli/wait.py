"""`agentos wait`."""

import time

import typer

from agentos.cli.database import opened
from agentos.cli.follow import Steps, follow, followed, tell_end
from agentos.cli.options import AsJson, Dsn, TaskId, Timeout
from agentos.cli.products import produced


def wait(task: TaskId, timeout: Timeout = None, dsn: Dsn = None, json: AsJson = False) -> None:
    """Wait for the end of a task and print its result.

    Exit code 0 if it completed, 1 if it failed or was cancelled, 4 if the timeout ended first, 5 if there is no such
    task. An outage of the database is waited out.

    \b
    Examples:
      agentos wait task-123
      agentos wait task-123 --timeout 60 --json | jq .result
    """
    started = time.monotonic()
    with opened(dsn) as db:
        with followed(task):
            progress = follow(db, task, timeout_s=timeout, changed=Steps(task))
        products = None if progress.single else produced(db, task)
    took_s = time.monotonic() - started
    raise typer.Exit(tell_end(task, progress, took_s=took_s, as_json=json, products=products))
