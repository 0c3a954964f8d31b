"""`agentos stats`."""

from dataclasses import asdict
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import duration, err, print_json, print_table
from agentos.store.calls.statistics import LaneStatistics, lane_statistics

STALE_S = 120.0


def stats(
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """How much there is to do, and how much was done, by queue, kind and version.

    What the coordinator counted last (AGENTOS_STATISTICS_S), so it costs the database nothing to ask. A number with ~
    is an estimate. Oldest: how long the item that is claimed next has been ready, at most. Completed and failed: in the
    last five minutes.

    \b
    Examples:
      agentos stats
      agentos stats --queue default
      agentos stats --json | jq '.statistics[] | select(.ready > 1000)'
    """
    with opened(dsn) as db:
        found = [each for each in db.run(lane_statistics()) if queue in (None, each.queue)]
    if json:
        print_json({"statistics": [asdict(each) for each in found]})
        return
    if not found:
        err.print("nothing was counted yet; a coordinator does: agentos-coordinator")
    elif (age_s := max(each.age_s for each in found)) > STALE_S:
        err.print(f"counted {duration(age_s)} ago; a coordinator counts: agentos-coordinator")
    columns = (
        "queue",
        "kind",
        "version",
        "ready",
        "oldest",
        "held",
        "scheduled",
        "waiting",
        "completed",
        "failed",
        "age",
    )
    print_table(columns, [_row(each) for each in found], fold=False)


def _row(each: LaneStatistics) -> tuple[object, ...]:
    oldest = "" if each.oldest_ready_s is None else duration(each.oldest_ready_s)
    ready, parked = "" if each.ready_exact else "~", "" if each.parked_exact else "~"
    return (
        each.queue, each.kind, each.version, f"{ready}{each.ready}", oldest, f"{parked}{each.held}",
        f"{parked}{each.scheduled}", f"{parked}{each.waiting}", each.completed_5m, each.failed_5m, duration(each.age_s),
    )  # fmt: skip
