"""`agentos budget`: what a task may spend, and more of it."""

from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import out, print_json, print_table
from agentos.core.app.handle import raise_budget
from agentos.core.budget import exact_cost
from agentos.store.calls import budgets, checkpoints
from agentos.store.calls.budgets import Limits
from agentos.store.run import drive


def budget(
    task: TaskId,
    add_tokens: Annotated[int | None, typer.Option(metavar="N", min=0, help="Raise max_tokens by N.")] = None,
    add_cost: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Raise max_cost, such as 2.50.")] = None,
    add_calls: Annotated[int | None, typer.Option(metavar="N", min=0, help="Raise max_calls by N.")] = None,
    add_wall: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Raise max_wall_s.")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """What a task may spend on models, what it has spent, and what calls in flight may come to.

    With --add-... the limits are raised, and what was parked for want of them goes on at once, in child tasks too. A
    task that failed by its budget is opened again with `agentos retry`.

    \b
    Examples:
      agentos budget task-123
      agentos budget task-123 --add-cost 5
    """
    add = Limits(add_tokens, exact_cost(add_cost), add_calls, add_wall)
    woken: tuple[int, ...] = ()
    with opened(dsn) as db:
        db.run(checkpoints.require_item(task, None))
        if add != Limits():
            woken = drive(db, raise_budget(task, add))
        lines = db.run(budgets.budget_of(task))
    if json:
        print_json({"task_id": task, "limits": lines, "woken": len(woken)})
        return
    if not lines:
        out.print(f"{task} has no budget")
    rows = [(line.name, line.most, line.spent, line.reserved, line.most - line.spent, line.on_exceed) for line in lines]
    print_table(("limit", "most", "spent", "in flight", "left", "then"), rows)
    if woken:
        out.print(f"{task} goes on: {len(woken)} item(s)")
