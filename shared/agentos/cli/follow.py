"""Watching a task until it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote

import typer

from agentos.cli.exits import FAILED, INTERRUPTED, OK
from agentos.cli.output import duration, err, gist, out, print_json, styled
from agentos.cli.products import Products
from agentos.store.calls.tasks import TaskProgress, task_progress
from agentos.store.calls.timeline import list_workers
from agentos.store.connect import Database
from agentos.store.errors import DatabaseUnavailable, TaskTimeout

SOONEST_S, LATEST_S = 0.05, 0.5


@contextmanager
def followed(task_id: str) -> Iterator[None]:
    """Ctrl-C in the block ends the following, not the task, and says so. Raises typer.Exit: with 130 then."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"{task_id} goes on; follow it again: agentos wait {quote(task_id)}")
        raise typer.Exit(INTERRUPTED) from None


def follow(
    db: Database, task_id: str, *, timeout_s: float | None, changed: Callable[[TaskProgress], None]
) -> TaskProgress:
    """Look until the task has ended; `changed` gets what was seen each time. An outage of the database is waited out.

    Raises UnknownTask. TaskTimeout: if it did not end within `timeout_s`.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = SOONEST_S
    while True:
        progress = _look(db, task_id)
        if progress:
            changed(progress)
            if progress.ended:
                return progress
        if end is not None and time.monotonic() >= end:
            raise TaskTimeout(
                f"task {task_id} did not end within {timeout_s:g} s; it goes on",
                hint=f"see what it is doing: agentos show {quote(task_id)}",
            )
        time.sleep(pause_s if end is None else max(0.0, min(pause_s, end - time.monotonic())))
        pause_s = min(LATEST_S, pause_s * 1.3)


def _look(db: Database, task_id: str) -> TaskProgress | None:
    try:
        return db.run(task_progress(task_id))
    except DatabaseUnavailable as error:
        err.print(f"{error.message}; looking again")
        return None


class Steps:
    """Says in one line each time something about the task changed; on stderr, for whoever waits."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._said = ""

    def __call__(self, progress: TaskProgress) -> None:
        """Say it if it is new."""
        parts = [f"{self._task_id} {progress.status}"]
        if not progress.single:
            parts.append(f"{progress.done} of {progress.done + progress.open} items done")
        if progress.held:
            parts.append(f"{progress.held} running")
        if progress.next_run_in_s is not None and progress.next_run_in_s > 0 and not progress.held:
            parts.append("waits for its next attempt or start")
        if progress.status == "waiting":
            parts.append(f"answer it: agentos approve {quote(self._task_id)}")
        if progress.status == "paused":
            parts.append(f"agentos resume {quote(self._task_id)}")
        said = ", ".join(parts)
        if said != self._said and not progress.ended:
            err.print(said, style="dim")
        self._said = said


def tell_if_nobody_serves(db: Database, queue: str, kinds: set[str]) -> None:
    """A task that no living worker can run waits for ever; whoever just submitted it should know."""
    for worker in db.run(list_workers()):
        if worker.state == "alive" and queue in worker.serves.get("queues", ()):
            kinds = kinds - set(worker.serves.get("kinds", ()))
    if kinds:
        names = ", ".join(sorted(kinds))
        option = "--allow-kind shell" if "shell" in kinds else "--app module:app"
        err.print(f"no living worker runs {names} in queue {queue}; start one: agentos-worker {option}")


def tell_end(
    task_id: str, progress: TaskProgress, *, took_s: float, as_json: bool, products: Products | None = None
) -> int:
    """Print how the task ended and its result, of a task of many items what each produced; the exit code."""
    ok = progress.status == "completed"
    result = products.by_key() if products else progress.result
    if as_json:
        print_json({"task_id": task_id, "status": progress.status, "reason": progress.reason, "result": result})
        return OK if ok else FAILED
    for line in products.lines() if products else ():
        out.print(line)
    reason = progress.reason if progress.reason and not ok else ""
    out.print(styled(progress.status), f"{task_id} after {duration(took_s)}", end="")
    out.print(f": {gist(reason, 500)}" if reason else "")
    if fix := next((line for line in reason.splitlines() if line.startswith("Fix: ")), None):
        err.print(gist(fix, 500))
    if products is None and result is not None:
        print_json(result)
    return OK if ok else FAILED
