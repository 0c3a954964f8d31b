"""`agentos limit`: how much may run, start or wait at once; and whose turn comes how often."""

import re
from typing import Annotated, cast, get_args

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import out, print_json, print_table
from agentos.store.calls import flow
from agentos.store.calls.flow import LimitRow, Per, Scope
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput

_UNITS = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
}
RATE_MOST = 10_000

limit = typer.Typer(
    help="""Limits that hold for all workers together, exactly, whoever dies.

    \b
    SCOPE NAME: queue NAME, kind NAME, tenant NAME, or all (everything; no NAME).
    --per tenant or --per key: for each tenant, or each concurrency key, by itself; what has none is left alone.

    \b
    Examples:
      agentos limit set queue reports --concurrency 10
      agentos limit set kind crawl --rate 100/60s --per key
      agentos limit set all --concurrency 500
      agentos limit set queue reports --max-depth 10000
      agentos limit weight acme 3
      agentos limit list --json
      agentos limit clear queue reports
    """,
    no_args_is_help=True,
)

ScopeArgument = Annotated[str, typer.Argument(metavar="SCOPE", help="queue, kind, tenant or all.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the queue, kind or tenant; none for all.")]
PerOption = Annotated[str, typer.Option(metavar="WHAT", help="all (together, the default), tenant or key.")]


@limit.command("set")
def set_(
    scope: ScopeArgument, name: Name = "",
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=1_000_000, help="Items held at once.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N/TIME", help="Items claimed within any such time: 100/60s, 5/s, 1000/h.")
    ] = None,
    max_depth: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1_000_000, help="Ready items; then submits are refused.")
    ] = None,
    per: PerOption = "all", dsn: Dsn = None, json: AsJson = False,
) -> None:  # fmt: skip
    """Set or change limits. They hold from now on; what runs beyond them runs to its end."""
    where, each = _checked(scope, name, per)
    if concurrency is None and rate is None and max_depth is None:
        raise InvalidInput("no limit is given", hint="add --concurrency N, --rate N/TIME or --max-depth N")
    most, period_s = _rate(rate) if rate is not None else (0, 0.0)
    if max_depth is not None and (where != "queue" or each != "all"):
        raise InvalidInput("--max-depth is for a queue as a whole", hint="agentos limit set queue NAME --max-depth N")
    with opened(dsn) as db:
        if concurrency is not None:
            db.run(flow.set_limit(where, name, "concurrency", concurrency, per=each))
        if rate is not None:
            db.run(flow.set_limit(where, name, "rate", most, per=each, period_s=period_s))
        if max_depth is not None:
            db.run(flow.set_depth(name, max_depth))
        _print(db, json)


@limit.command()
def clear(
    scope: ScopeArgument, name: Name = "",
    concurrency: Annotated[bool, typer.Option("--concurrency", help="Only this one.")] = False,
    rate: Annotated[bool, typer.Option("--rate", help="Only this one.")] = False,
    max_depth: Annotated[bool, typer.Option("--max-depth", help="Only this one.")] = False,
    per: PerOption = "all", dsn: Dsn = None, json: AsJson = False,
) -> None:  # fmt: skip
    """Take limits away: those named by options, or all of the scope. One that a handler declares is back at the next
    start of a worker that serves it.
    """
    where, each = _checked(scope, name, per)
    every = not (concurrency or rate or max_depth)
    with opened(dsn) as db:
        if concurrency or every:
            db.run(flow.clear_limit(where, name, "concurrency", each))
        if rate or every:
            db.run(flow.clear_limit(where, name, "rate", each))
        if (max_depth or every) and where == "queue":
            db.run(flow.set_depth(name, None))
        _print(db, json)


@limit.command("list")
def list_(dsn: Dsn = None, json: AsJson = False) -> None:
    """List the limits, what uses them now (of the key that uses most), and who set them."""
    with opened(dsn) as db:
        _print(db, json)


@limit.command()
def weight(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="As submits name it.")],
    turns: Annotated[float, typer.Argument(metavar="N", min=0.01, max=1000.0, help="1 is what every other has.")],
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Give a tenant N items for each item of one with weight 1, while both have work."""
    with opened(dsn) as db:
        former = db.run(flow.set_weight(tenant, turns))
    if json:
        print_json({"tenant": tenant, "weight": turns, "former": former})
    else:
        out.print(f"tenant {tenant} has weight {turns:g} (it had {former:g})")


def _checked(scope: str, name: str, per: str) -> tuple[Scope, Per]:
    if scope not in get_args(Scope) or per not in get_args(Per):
        raise InvalidInput(
            f"there is no scope {scope!r} --per {per!r}", hint="queue, kind, tenant or all; --per all, tenant or key"
        )
    if (scope == "all") != (not name):
        raise InvalidInput(
            f"{scope} {name!r} names nothing", hint="queue NAME, kind NAME, tenant NAME; all without one"
        )
    return cast(Scope, scope), cast(Per, per)


def _rate(text: str) -> tuple[int, float]:
    found = re.fullmatch(r"(\d{1,6})/(\d*\.?\d*)([a-z]+)", text.strip())
    if found is None or found[3] not in _UNITS or int(found[1]) > RATE_MOST:
        raise InvalidInput(f"the rate {text!r} is not N/TIME", hint=f"100/60s, 5/s, 1000/h; N at most {RATE_MOST}")
    period_s = float(found[2] or 1) * _UNITS[found[3]] if found[2] != "." else 0.0
    if period_s <= 0:
        raise InvalidInput(f"the rate {text!r} has no time", hint="100/60s, 5/s, 1000/h")
    return int(found[1]), period_s


def _print(db: Database, json: bool) -> None:
    found = db.run(flow.list_limits())
    if json:
        print_json({"limits": found})
        return
    if not found:
        out.print("there are no limits")
    print_table(("scope", "name", "limit", "per", "used", "keys", "set by"), [_row(each) for each in found])


def _row(row: LimitRow) -> tuple[object, ...]:
    shown = {
        "concurrency": f"{row.most} at once",
        "rate": f"{row.most} in {row.period_s} s",
        "depth": f"{row.most} ready",
    }
    used = "" if row.measure == "depth" else row.used
    by = "its handler" if row.declared else "an operator"
    return (row.scope, row.name, shown[row.measure], row.per, used, row.keys if row.per != "all" else "", by)
