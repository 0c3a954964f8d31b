"""`agentos crashtest`."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from psycopg import sql
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agentos.cli.exits import FAILED, OK
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import duration, err, out, print_json, print_table
from agentos.core.logs import configure_logs
from agentos.store.connect import connect, locate
from agentos.store.errors import InvalidInput
from agentos.store.migrate import migrate
from agentos.store.schema import VARIABLE
from agentos.store.settings import load_settings
from agentos.testing import CRASH_TIMES, Clock, Pool
from agentos.testing.crashtest import PRIMITIVES, Cell, Scenario, Transition, run_matrix
from agentos.testing.databases import forget_process_caches


def crashtest(
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This primitive only; may be repeated.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the schema there, to look at.")] = False,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Kill a worker at every durable point of every primitive, and check what came of it.

    Each cell of the table is one task and one real process, killed -9 before, during or after one call of the engine;
    then others go on, and every effect must have been done once, every result be there, every item in one place.

    It runs on your own database, in a schema of its own that is dropped at the end: nothing else there is touched. The
    role must be allowed to create a schema. Exit code 0 if everything held, 1 if not.

    \b
    Examples:
      agentos crashtest
      agentos crashtest --only tool_probe --only checkpoint
      AGENTOS_DSN=postgresql://me@db/app agentos crashtest --json
    """
    chosen = _chosen(only)
    configure_logs("auto", "error")
    started = time.monotonic()
    with _own_schema(dsn, keep=keep) as pool, tempfile.TemporaryDirectory(prefix="agentos-crashtest-") as folder:
        cells = _with_progress(pool, chosen, Path(folder))
    bad = [cell for cell in cells if not cell.holds]
    if json:
        print_json({"cells": cells, "held": len(cells) - len(bad), "failed": len(bad)})
    else:
        _show(chosen, cells)
        took = duration(time.monotonic() - started)
        out.print(f"{len(cells) - len(bad)} of {len(cells)} crash points hold, in {took}")
        for cell in bad:
            err.print(f"{cell.scenario} {cell.when}:{cell.call}: {cell.trouble}", style="red")
    raise typer.Exit(FAILED if bad else OK)


def _chosen(only: list[str] | None) -> list[Scenario | Transition]:
    known = {scenario.name: scenario for scenario in PRIMITIVES}
    if unknown := set(only or ()) - known.keys():
        raise InvalidInput(f"no primitive is named {', '.join(sorted(unknown))}", hint=f"choose of {', '.join(known)}")
    return [known[name] for name in only] if only else list(PRIMITIVES)


@contextmanager
def _own_schema(dsn: str | None, *, keep: bool) -> Iterator[Pool]:
    """A pool in a new schema of the database. The name reaches the processes by their environment."""
    url = locate(load_settings(dsn=dsn)).dsn
    name = f"agentos_crashtest_{secrets.token_hex(4)}"
    former = {variable: os.environ.get(variable) for variable in (VARIABLE, "AGENTOS_DSN")}
    os.environ.update({VARIABLE: name, "AGENTOS_DSN": url})
    try:
        with connect(url) as conn:
            migrate(conn)
        yield Pool(url, Clock(url))
    finally:
        forget_process_caches()
        for variable, value in former.items():
            os.environ.pop(variable) if value is None else os.environ.update({variable: value})
        if keep:
            err.print(f"left for you to look at: schema {name} ({VARIABLE}={name} agentos tasks)")
        else:
            with connect(url) as conn:
                conn.execute("SET client_min_messages = warning")
                conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _with_progress(pool: Pool, chosen: Sequence[Scenario | Transition], folder: Path) -> list[Cell]:
    total = sum(len(scenario.calls) for scenario in chosen) * len(CRASH_TIMES)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        shown = bar.add_task("", total=total)
        cells = []
        for cell in run_matrix(pool, chosen, folder, began=lambda name: bar.update(shown, description=name)):
            cells.append(cell)
            bar.advance(shown)
    return cells


def _show(chosen: Sequence[Scenario | Transition], cells: Sequence[Cell]) -> None:
    found = {(cell.scenario, cell.call, cell.when): cell for cell in cells}
    rows = []
    for scenario in chosen:
        for call in scenario.calls:
            held = [found[scenario.name, call, when] for when in CRASH_TIMES]
            rows.append((scenario.name, scenario.about, call, *("holds" if cell.holds else "FAILS" for cell in held)))
    print_table(("primitive", "what", "killed at", *CRASH_TIMES), rows)
