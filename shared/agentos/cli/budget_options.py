"""Options that set a task's budget."""

from typing import Annotated, cast

import typer

from agentos.core.budget import Budget
from agentos.store.calls import budgets
from agentos.store.errors import InvalidInput

MaxTokens = Annotated[int | None, typer.Option(metavar="N", help="Budget: tokens of model calls, in and out.")]
MaxCost = Annotated[str | None, typer.Option(metavar="AMOUNT", help="Budget: cost of model calls, such as 2.50.")]
MaxCalls = Annotated[int | None, typer.Option(metavar="N", help="Budget: model calls that are paid.")]
MaxWall = Annotated[float | None, typer.Option(metavar="SECONDS", help="Budget: running time, without waits.")]
OnExceed = Annotated[str, typer.Option(metavar="park|fail", help="When the budget refuses a call: wait, or fail.")]


def budget_from(
    tokens: int | None, cost: str | None, calls: int | None, wall_s: float | None, on_exceed: str
) -> Budget | None:
    """The budget that the options describe; None: they set no limit. Raises ConfigInvalid, InvalidInput."""
    if on_exceed not in ("park", "fail"):
        raise InvalidInput(f"--on-exceed is {on_exceed!r}", hint="use park or fail")
    if tokens is None and cost is None and calls is None and wall_s is None:
        return None
    return Budget(tokens, cost, calls, wall_s, cast(budgets.OnExceed, on_exceed))
