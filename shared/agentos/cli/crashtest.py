"""`agentos crashtest`."""

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from psycopg import sql

from agentos.cli.crashtest_progress import Watch
from agentos.cli.exits import FAILED, INTERRUPTED, OK
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import duration, err, out, print_json, print_table
from agentos.core.logs import configure_logs
from agentos.store.connect import connect, locate
from agentos.store.errors import InvalidInput
from agentos.store.migrate import migrate
from agentos.store.schema import VARIABLE
from agentos.store.settings import load_settings
from agentos.testing import CRASH_TIMES
from agentos.testing.crashtest import PRIMITIVES, Cell, Scenario, Transition, places_of, run_crew

STOPS = (signal.SIGINT, signal.SIGTERM)
JOBS = min(4, os.cpu_count() or 1)
"""More than there are cores take longer, not shorter. Each takes some fifteen connections."""


def crashtest(
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This primitive only; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Play so many cells at a time.")] = JOBS,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the schemas there, to look at.")] = False,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Kill a worker at every durable point of every primitive, and check what came of it.

    Each cell of the table is one task and one real process, killed -9 before, during or after one call of the engine;
    then others go on, and every effect must have been done once, every result be there, every item in one place.

    It runs on your own database, each job in a schema of its own that is dropped at the end: nothing else there is
    touched. The role must be allowed to create a schema. How far it is, and each cell that fails, is told on stderr.
    Exit code 0 if everything held, 1 if not; Ctrl-C prints what is known by then, and ends with 130.

    \b
    Examples:
      agentos crashtest
      agentos crashtest --only tool_probe --only checkpoint
      AGENTOS_DSN=postgresql://me@db/app agentos crashtest --jobs 8 --json
    """
    chosen = _chosen(only)
    configure_logs("auto", "error")
    started = time.monotonic()
    cells: list[Cell] = []
    stopped = _play(chosen, jobs, dsn, keep=keep, into=cells)
    places = [(scenario.name, point.call, point.when) for scenario, point in places_of(chosen)]
    cells.sort(key=lambda cell: places.index((cell.scenario, cell.call, cell.when)))
    bad, left = [cell for cell in cells if not cell.holds], len(places) - len(cells)
    if json:
        print_json({"cells": cells, "held": len(cells) - len(bad), "failed": len(bad), "left": left})
    else:
        _show(chosen, cells)
        rest = f" ({left} were not played)" if left else ""
        took = duration(time.monotonic() - started)
        out.print(f"{len(cells) - len(bad)} of {len(cells)} crash points hold{rest}, in {took}")
        for cell in bad:
            err.print(f"{cell.scenario} {cell.when}:{cell.call}: {cell.trouble}", style="red")
    raise typer.Exit(INTERRUPTED if stopped else FAILED if bad or left else OK)


def _chosen(only: list[str] | None) -> list[Scenario | Transition]:
    known = {scenario.name: scenario for scenario in PRIMITIVES}
    if unknown := set(only or ()) - known.keys():
        raise InvalidInput(f"no primitive is named {', '.join(sorted(unknown))}", hint=f"choose of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(only)] if only else list(PRIMITIVES)


def _play(
    chosen: Sequence[Scenario | Transition], jobs: int, dsn: str | None, *, keep: bool, into: list[Cell]
) -> bool:  # fmt: skip
    """Whether somebody stopped it: by then its processes and schemas are gone."""
    places = list(places_of(chosen))
    try:
        with (
            _stoppable() as ending,
            _own_schemas(dsn, min(jobs, len(places)), ending, keep=keep) as (url, schemas),
            tempfile.TemporaryDirectory(prefix="agentos-crashtest-") as folder,
            Watch(len(places), jobs) as watch,
            closing(run_crew(url, schemas, places, Path(folder), began=watch.began)) as found,
        ):
            for cell in found:
                into.append(cell)
                watch.ended(cell)
    except KeyboardInterrupt:
        return True
    return False


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Ctrl-C or SIGTERM is a KeyboardInterrupt, once: a second one would leave processes and schemas there. Nor is it
    one after what this yields was called.
    """
    former = {number: signal.getsignal(number) for number in STOPS}
    ending = False

    def end() -> None:
        nonlocal ending
        ending = True

    def stop(_number: int, _frame: object) -> None:
        if not ending:
            end()
            raise KeyboardInterrupt

    for number, was in former.items():
        if was is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield end
    finally:
        for number, was in former.items():
            signal.signal(number, was)


@contextmanager
def _own_schemas(
    dsn: str | None, count: int, ending: Callable[[], None], *, keep: bool
) -> Iterator[tuple[str, Sequence[str]]]:
    """New schemas in the database, and its URL. `ending` is called before they are dropped."""
    url = locate(load_settings(dsn=dsn)).dsn
    run = secrets.token_hex(4)
    names = [f"agentos_crashtest_{run}_{n}" for n in range(1, count + 1)]
    try:
        for name in names:
            _make(url, name)
        yield url, names
    finally:
        ending()
        if keep:
            err.print(f"left for you to look at: schema {', '.join(names)} ({VARIABLE}={names[0]} agentos tasks)")
        else:
            _drop(url, names)


def _make(url: str, name: str) -> None:
    former = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        with connect(url) as conn:
            migrate(conn)
    finally:
        os.environ.pop(VARIABLE) if former is None else os.environ.update({VARIABLE: former})


def _drop(url: str, names: Sequence[str]) -> None:
    with connect(url) as conn:
        conn.execute("SET client_min_messages = warning")
        for name in names:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _show(chosen: Sequence[Scenario | Transition], cells: Sequence[Cell]) -> None:
    found = {(cell.scenario, cell.call, cell.when): "holds" if cell.holds else "FAILS" for cell in cells}
    rows = []
    for scenario in chosen:
        for call in scenario.calls:
            held = [found.get((scenario.name, call, when), "") for when in CRASH_TIMES]
            if any(held):
                rows.append((scenario.name, scenario.about, call, *held))
    print_table(("primitive", "what", "killed at", *CRASH_TIMES), rows)
