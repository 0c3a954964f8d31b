"""`agentos workers`."""

from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import duration, err, print_json, print_table
from agentos.store.calls.timeline import WorkerRow, list_workers


def workers(
    gone: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Also those that ended so long ago.")] = 0.0,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """List the workers: living ones, and with --gone those that stopped or died lately.

    State: alive, draining (it stops), late (no beat within its TTL, and no coordinator has declared it dead yet), dead,
    stopped. Role: worker, solo (runs items alone that crashed a process before), runner, lease, guest (a program that
    uses the library).

    \b
    Examples:
      agentos workers
      agentos workers --gone 3600
      agentos workers --json
    """
    with opened(dsn) as db:
        found = db.run(list_workers(gone))
    if json:
        print_json({"workers": found})
        return
    if not found:
        err.print("no worker is alive; start one: agentos-worker --app module:app (or: agentos up)")
    columns = ("worker", "state", "role", "host", "pid", "holds", "serves", "beat", "loop lag", "up", "version")
    print_table(columns, [_row(worker) for worker in found], fold=False)


def _row(worker: WorkerRow) -> tuple[object, ...]:
    serves = worker.serves
    kinds, queues = ", ".join(serves.get("kinds", ())), ", ".join(serves.get("queues", ()))
    up_s = (worker.beat_at - worker.started_at).total_seconds()
    return (
        worker.label, worker.state, worker.role, worker.host, worker.pid,
        f"{worker.held}/{serves.get('concurrency', '?')}", f"{kinds} in {queues}" if kinds else "",
        f"{duration(worker.beat_age_s)} ago", f"{worker.loop_lag_ms} ms", duration(up_s), worker.version,
    )  # fmt: skip
