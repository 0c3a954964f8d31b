"""What tasks may spend on models, what they spent, and what records saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal, TypeVar

from agentos.store.run import Call

T = TypeVar("T")
OnExceed = Literal["park", "fail"]
By = Literal["task", "model", "day"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a budget, or what is added to them. None: there is none, or nothing is added. `wall_s`: seconds."""

    tokens: int | None = None
    cost: Decimal | None = None
    calls: int | None = None
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One limit of a budget: `name` is max_tokens, max_cost, max_calls or max_wall_s (seconds). `reserved`: what calls
    that are being made may come to.
    """

    name: str
    on_exceed: OnExceed
    most: Decimal
    spent: Decimal
    reserved: Decimal


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Model calls made and paid, and those that a record answered. None: not told apart by it. `unpriced_calls`: of the
    calls, those of a model without a price, which `cost` lacks.
    """

    task_id: str | None
    model: str | None
    day: date | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    unpriced_calls: int
    saved_calls: int
    saved_prompt_tokens: int
    saved_completion_tokens: int
    saved_cost: Decimal


def set_budget(task_id: str, limits: Limits, on_exceed: OnExceed, *, parent: str | None = None) -> Call[None]:
    """Give a task a budget, or other limits. `parent`: the task whose budget counts its calls, too."""
    return Call(
        "SELECT agentos.set_budget($1::text[], $2::text, $3::bigint, $4::numeric, $5::bigint, $6::float8, $7::text)",
        ([task_id], parent, limits.tokens, limits.cost, limits.calls, limits.wall_s, on_exceed),
        lambda _: None,
    )


def with_budget(submit: Call[T], task_ids: Sequence[str], limits: Limits, on_exceed: OnExceed) -> Call[T]:
    """The call that submits these tasks and gives each its budget in one statement: both are there, or neither."""
    at = len(submit.args)
    also = (
        f"{submit.sql}, agentos.set_budget(${at + 1}::text[], NULL, ${at + 2}::bigint, ${at + 3}::numeric,"
        f" ${at + 4}::bigint, ${at + 5}::float8, ${at + 6}::text)"
    )
    args = (list(task_ids), limits.tokens, limits.cost, limits.calls, limits.wall_s, on_exceed)
    return Call(also, (*submit.args, *args), submit.read)


def inherit_budget(parent: str, child: str) -> Call[None]:
    """The calls of `child` count against the budget of `parent`, if that has one."""
    return Call("SELECT agentos.inherit_budget($1::text, $2::text)", (parent, child), lambda _: None)


def raise_budget(task_id: str, add: Limits) -> Call[tuple[int, ...]]:
    """Raise limits that a task has. Returns the items that were parked for want of them and are ready now.

    Raises UnknownTask; NotRetryable: if the task has no budget.
    """
    return Call(
        "SELECT agentos.raise_budget($1::text, $2::bigint, $3::numeric, $4::bigint, $5::float8) AS items",
        (task_id, add.tokens, add.cost, add.calls, add.wall_s),
        lambda rows: tuple(rows[0]["items"]),
    )


def budget_of(task_id: str) -> Call[tuple[BudgetLine, ...]]:
    """The limits of a task's own budget; none: it has no budget."""
    return Call(
        "SELECT * FROM agentos.budget_of($1::text)",
        (task_id,),
        lambda rows: tuple(BudgetLine(**dict(row)) for row in rows),
    )


def usage_of(
    by: Sequence[By], *, task_id: str | None = None, model: str | None = None, days: int = 36_500, limit: int = 1000
) -> Call[tuple[UsageLine, ...]]:
    """Sums, told apart by each of `by`; of the last `days` days (UTC, today counts), the newest and dearest first."""
    return Call(
        "SELECT * FROM agentos.usage_of($1::text[], $2::text, $3::text, $4::integer, $5::integer)",
        (list(by), task_id, model, days, limit),
        lambda rows: tuple(UsageLine(**dict(row)) for row in rows),
    )
