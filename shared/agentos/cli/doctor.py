"""`agentos doctor`."""

import os
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from agentos.cli.database import command_settings, described
from agentos.cli.exits import FAILED, OK
from agentos.cli.findings import Told, told
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import out, print_json
from agentos.core.process import host
from agentos.store.calls import tasks, timeline
from agentos.store.calls.timeline import Finding
from agentos.store.connect import OnConnection, connect, locate
from agentos.store.migrate import check_schema, schema_state
from agentos.store.pooler import is_pooled

MOST_SKEW_S = 1.0
_COLOURS = {"problem": "bold red", "warning": "bold yellow", "note": "yellow"}


def doctor(
    old: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="A transaction is old after so long.")] = 60.0,
    silent: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="An attempt is silent that recorded nothing for so long.")
    ] = 3600.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also look at every item; takes long with millions.")] = False,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Look for what is wrong, each with its fix. Changes nothing.

    The schema, day partitions, workers that do not beat, leases without a living worker, work that nobody alive can
    run, a missing coordinator (while a scheduled item or a late worker waits for one), calls in doubt, quarantined
    items, old transactions and whatever else keeps dead rows (prepared transactions, replication slots, autovacuum that
    is off or lacks its settings, bloated tables), statements that wait for a lock, attempts that record nothing, clocks
    that differ, mixed versions, late event loops, the connection budget, settings that may lose commits.

    A problem has to be mended: exit code 1. A warning should be looked at: exit code 0, with --strict 1. A note (a
    waiting approval, tasks that failed, a pooler in between) is only told. 3: the database cannot be used.

    \b
    Examples:
      agentos doctor
      agentos doctor --json | jq -r .findings
    """
    settings = command_settings(dsn)
    target = locate(settings)
    with connect(target.dsn) as conn:
        check_schema(conn)
        about = _about(OnConnection(conn), conn.info.server_version, schema_state(conn).version)
        about["transaction_pooler"] = is_pooled(conn)
        found = [told(each) for each in OnConnection(conn).run(timeline.findings(old, silent))]
        found += _skew_here(OnConnection(conn))
        if about["transaction_pooler"]:
            found.append(told(Finding("pooled", {"host": conn.info.host})))
        if deep:
            found += [_misplaced(each) for each in OnConnection(conn).run(tasks.misplaced_items())]
    _tell({"database": described(target, settings), **about}, found, as_json=json)
    wrong = ("problem", "warning") if strict else ("problem",)
    raise typer.Exit(FAILED if any(each.severity in wrong for each in found) else OK)


def _about(db: OnConnection, server: int, schema: int | None) -> dict[str, Any]:
    workers = db.run(timeline.list_workers(3600.0))
    return {
        "server": f"PostgreSQL {server // 10000}.{server % 10000}",
        "schema": schema,
        "workers_alive": sum(worker.state in ("alive", "draining") and worker.role == "worker" for worker in workers),
        "workers_died_within_an_hour": sum(worker.state == "dead" for worker in workers),
        "coordinator_leads": db.run(timeline.is_led("coordinator")),
    }


def _skew_here(db: OnConnection) -> list[Told]:
    """This host's clock beside the database's, give or take half the round trip."""
    asked_at = time.time()
    server_s = db.run(timeline.server_time()).timestamp()
    here_s, round_trip_s = (asked_at + time.time()) / 2, time.time() - asked_at
    skew_s = round(server_s - here_s, 3)
    if abs(skew_s) <= MOST_SKEW_S + round_trip_s / 2:
        return []
    return [told(Finding("clock_skew", {"host": host(), "skew_s": skew_s, "pid": os.getpid()}))]


def _misplaced(row: dict[str, Any]) -> Told:
    finding = Finding("misplaced", row)
    message = f"item {row['item_id']} of {row['task_id']} is in {row['places']} places: {row['found']}"
    return Told(
        finding.finding, "problem", message, "a defect, or a hand edit: please report it with this line", finding.data
    )


def _tell(about: dict[str, Any], found: list[Told], *, as_json: bool) -> None:
    if as_json:
        print_json({**about, "findings": [asdict(each) for each in found]})
        return
    for name, value in about.items():
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        out.print(f"{name.replace('_', ' ')}: {shown}")
    for each in found:
        mark = Text(f"{each.severity:<7}", _COLOURS[each.severity])
        out.print(Text.assemble(mark, f"  {each.message}"))
        if each.fix:
            out.print(Text.assemble("         ", ("Fix: ", "bold green"), each.fix))
    if not any(each.severity != "note" for each in found):
        out.print(Text("nothing is wrong", "green"))
