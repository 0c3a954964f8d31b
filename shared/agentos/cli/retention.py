"""`agentos retention`."""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from agentos.cli.database import command_settings
from agentos.cli.exits import FAILED, OK
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import out, print_json, print_table, size
from agentos.core.retention import Did, Policy, Retention
from agentos.store.calls.blobs import collectable_blobs
from agentos.store.calls.retention import DayPartition, Retirable, database_time, partitions_due, retirable_tasks
from agentos.store.connect import AsyncDatabase, Database, open_target

LOOKED_AT = 10_000
"""Tasks that are looked at to say how many would go; with so many it says so."""
ROUND_S = 60.0


def retention(
    apply: Annotated[bool, typer.Option("--apply", help="Do it now, until nothing more is due.")] = False,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """What is kept no longer: what would go now, by the policy of AGENTOS_RETENTION_* here. Changes nothing.

    Tasks that have ended for long enough, records that go before their task, partitions of days, and parts of large
    values. Rows and bytes of partitions are those of the server's statistics. With --apply it goes, as the coordinator
    does it every ten minutes: in small commits, and never anything that lives. Exit code 1: a partition could not go.

    \b
    Examples:
      agentos retention
      agentos retention --json | jq '.partitions[].name'
      AGENTOS_RETENTION_EVENTS_D=7 agentos retention --apply
    """
    settings = command_settings(dsn)
    target, policy = open_target(settings).dsn, Policy.of(settings)
    if apply:
        did = asyncio.run(_apply(target, policy))
        _print_done(did, as_json=json)
        raise typer.Exit(FAILED if did.blocked else OK)
    database = Database(target, max_size=1)
    try:
        _print_due(policy, *_due(database, policy), as_json=json)
    finally:
        database.close()


async def _apply(dsn: str, policy: Policy) -> Did:
    db = await AsyncDatabase.open(dsn, max_size=1)
    rounds, total = Retention(policy), Did()
    try:
        while not total.done:
            did = await rounds.round(db, ROUND_S)
            total = Did(
                total.retired + did.retired, total.trimmed + did.trimmed, total.partitions + did.partitions,
                total.forgotten + did.forgotten, total.parts + did.parts, did.blocked, done=did.done,
            )  # fmt: skip
        return total
    finally:
        await db.close()


def _due(
    db: Database, policy: Policy
) -> tuple[list[tuple[str, float, Retirable]], tuple[DayPartition, ...], tuple[int, int]]:
    now = db.run(database_time())
    ago = [None if days is None else now - timedelta(days=days) for days in (policy.outcomes_d, policy.events_d)]
    tasks = [
        (", ".join(kinds), days, db.run(retirable_tasks(now - timedelta(days=days), LOOKED_AT)))
        for kinds, days in policy.walks()
    ]
    parts = (0, 0) if policy.blobs_s is None else db.run(collectable_blobs(policy.blobs_s, LOOKED_AT))
    return tasks, db.run(partitions_due(*ago)), parts


def _print_due(
    policy: Policy, tasks: list[tuple[str, float, Retirable]], partitions: tuple[DayPartition, ...],
    parts: tuple[int, int], *, as_json: bool,
) -> None:  # fmt: skip
    if as_json:
        looked = [
            {"what": what, "days": days, "tasks": found.ended, "bytes": found.bytes, "all": found.made < LOOKED_AT}
            for what, days, found in tasks
        ]
        print_json({
            "policy": asdict(policy), "tasks": looked, "partitions": [asdict(each) for each in partitions],
            "parts": {"count": parts[0], "bytes": parts[1], "all": parts[0] < LOOKED_AT},
        })  # fmt: skip
        return
    rows: list[tuple[Any, ...]] = [
        (what, f"ended {days:g} days ago", f"{found.ended}{'' if found.made < LOOKED_AT else '+'} tasks",
         size(found.bytes) if what == "tasks" else "")
        for what, days, found in tasks
    ]  # fmt: skip
    rows += [(each.name, each.state, f"{each.rows} rows", size(each.bytes)) for each in partitions]
    if parts[0]:
        rows.append(
            ("parts", "nothing refers to", f"{parts[0]}{'' if parts[0] < LOOKED_AT else '+'} parts", size(parts[1]))
        )
    print_table(("what", "state", "holds", "about"), rows, title="Would go (agentos retention --apply)")


def _print_done(did: Did, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(did))
        return
    out.print(
        f"retired {did.retired} tasks, trimmed {did.trimmed}; dropped {len(did.partitions)} partitions, "
        f"{did.parts} parts; forgot {did.forgotten} rows of what went before"
    )
    for name, reason in did.blocked.items():
        out.print(f"{name} cannot go: {reason}")
