"""What a task may spend on models."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isfinite

from agentos.store.calls.budgets import Limits, OnExceed
from agentos.store.errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on the model calls of a task and its child tasks; None: no such limit.

    `max_tokens`: prompt and completion together. `max_cost`: in the currency of the prices, exact: a Decimal, a text or
    an int. `max_calls`: calls made, not those that a record answered. `max_wall_s`: seconds that its items run,
    together; waiting does not count. `on_exceed`: `park` (the default: it waits until `agentos budget TASK` raises the
    limit) or `fail` (BudgetExceeded).
    """

    max_tokens: int | None = None
    max_cost: Decimal | str | int | None = None
    max_calls: int | None = None
    max_wall_s: float | None = None
    on_exceed: OnExceed = "park"

    def __post_init__(self) -> None:
        """Raises ConfigInvalid: if it sets no limit, one is negative or not exact, or `on_exceed` is not known."""
        if self.on_exceed not in ("park", "fail"):
            raise ConfigInvalid(f"on_exceed={self.on_exceed!r} is not known", hint="use 'park' or 'fail'")
        given = (self.max_tokens, self.max_cost, self.max_calls, self.max_wall_s)
        if all(each is None for each in given):
            raise ConfigInvalid("the budget sets no limit", hint="Budget(max_tokens=..., max_cost=..., max_calls=...)")
        for name in ("max_tokens", "max_calls"):
            _check(name, getattr(self, name), whole=True)
        _check("max_wall_s", self.max_wall_s, whole=False)
        exact_cost(self.max_cost)

    @property
    def limits(self) -> Limits:
        """The limits as the database keeps them."""
        return Limits(self.max_tokens, exact_cost(self.max_cost), self.max_calls, self.max_wall_s)


def exact_cost(cost: Decimal | str | int | None) -> Decimal | None:
    """`cost` as a Decimal. Raises ConfigInvalid: if it is a float (not exact), no number, or negative."""
    if cost is None:
        return None
    try:
        exact = Decimal("NaN" if isinstance(cost, float | bool) else cost)
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or exact < 0:
        raise ConfigInvalid(f"the cost {cost!r} is no exact number of 0 or more", hint='write it as a text: "2.50"')
    return exact


def _check(name: str, value: float | None, *, whole: bool) -> None:
    if value is None:
        return
    fits = isinstance(value, int) if whole else isfinite(value)
    if isinstance(value, bool) or not fits or not 0 <= value < 2**63:
        raise ConfigInvalid(f"{name} is {value!r}", hint=f"pass a {'whole ' if whole else ''}number of 0 or more")
