"""`agentos usage`: tokens and cost."""

from collections.abc import Sequence
from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import print_json, print_table
from agentos.store.calls import budgets
from agentos.store.calls.budgets import By


def usage(
    by_task: Annotated[bool, typer.Option("--task", help="Told apart by task.")] = False,
    by_model: Annotated[bool, typer.Option("--model", help="Told apart by model.")] = False,
    by_day: Annotated[bool, typer.Option("--day", help="Told apart by day (UTC).")] = False,
    of_task: Annotated[str | None, typer.Option(metavar="TASK", help="Of this task only.")] = None,
    of_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Of this model only.")] = None,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Of the last so many days.")] = 30,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many lines.")] = 200,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Tokens and cost of model calls: spent on calls that were made, saved by outputs that were recorded.

    Costs are in the currency of the prices (AGENTOS_LLM_PRICES). Without --task, --model or --day: by model.

    \b
    Examples:
      agentos usage --day --model
      agentos usage --task --days 7 --json
      agentos usage --of-task task-123
    """
    chosen: list[By] = [by for by, wanted in (("day", by_day), ("task", by_task), ("model", by_model)) if wanted]  # type: ignore[misc]
    by: Sequence[By] = chosen or ["model"]
    with opened(dsn) as db:
        lines = db.run(budgets.usage_of(by, task_id=of_task, model=of_model, days=days, limit=limit))
    if json:
        print_json(lines)
        return
    names = [{"day": "day", "task": "task", "model": "model"}[each] for each in by]
    rows = [
        (*(getattr(line, "task_id" if each == "task" else each) for each in by), line.calls, line.prompt_tokens,
         line.completion_tokens, line.cost, line.unpriced_calls or "", line.saved_calls,
         line.saved_prompt_tokens + line.saved_completion_tokens, line.saved_cost)
        for line in lines
    ]  # fmt: skip
    columns = (*names, "calls", "tokens in", "out", "cost", "unpriced", "saved calls", "saved tokens", "saved cost")
    print_table(columns, rows)
