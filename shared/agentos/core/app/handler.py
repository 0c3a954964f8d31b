"""A registered handler: what runs the items of one kind, and within which limits."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from agentos.core.app.limits import Limit, Rate
from agentos.core.app.retry import Retry
from agentos.core.budget import Budget
from agentos.core.flows.program import OnChange
from agentos.store.errors import ConfigInvalid

Isolation = Literal["none", "process"]
MEMORY_LEAST_MB = 128
"""Below it the interpreter of an isolated handler does not even start."""
_CENTURY_S = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """`function(ctx, **payload)`; async ones run on the loop, plain ones in a thread. The rest as `App.task` has it.
    Its hash is its identity: each submit asks for it.

    Raises ConfigInvalid: if the limits make no sense.
    """

    kind: str
    function: Callable[..., Any]
    max_attempts: int
    timeout_s: float | None
    queue: str
    budget: Budget | None = None
    deadline_s: float | None = None
    on_change: OnChange = "ask"
    retry: Retry | None = None
    cancel_grace_s: float | None = None
    isolation: Isolation = "none"
    memory_mb: int | None = None
    version: int = 0
    accepts: frozenset[int] = frozenset({0})
    concurrency: Limit | None = None
    rate: Rate | None = None
    is_async: bool = field(init=False)
    """Whether the function is a coroutine function. Found out once: `inspect` takes a tenth of what an item costs."""
    limit_key: str | None = field(init=False)
    """The name in the payload that its limits count by; None: they count the whole kind."""

    def __post_init__(self) -> None:
        """Check it."""
        object.__setattr__(self, "is_async", inspect.iscoroutinefunction(self.function))
        check_deadline(self.deadline_s)
        self._check_attempts()
        self._check_isolation()
        self._check_limits()
        if self.on_change not in get_args(OnChange):
            self._refuse(f"on_change is {self.on_change!r}", "use 'ask', 'continue' or 'fail'")

    def _check_attempts(self) -> None:
        retry: object = self.retry
        if retry is not None and not isinstance(retry, Retry):
            self._refuse(f"retry is {retry!r:.80}", "pass retry=Retry(initial_s=..., ...)")
        if not 1 <= self.max_attempts <= 1000 or (self.timeout_s is not None and self.timeout_s <= 0):
            self._refuse(
                f"max_attempts is {self.max_attempts}, timeout_s is {self.timeout_s}",
                "max_attempts takes 1 to 1000, timeout_s more than 0",
            )
        if self.cancel_grace_s is not None and not 0 <= self.cancel_grace_s <= 86_400:
            self._refuse(f"cancel_grace_s is {self.cancel_grace_s!r}", "pass seconds, 0 to 86400")

    def _check_limits(self) -> None:
        concurrency, rate = self.concurrency, self.rate
        for given, wanted in ((concurrency, Limit), (rate, Rate)):
            value: object = given
            if value is not None and not isinstance(value, wanted):
                self._refuse(
                    f"{value!r:.80} is no {wanted.__name__}", "pass concurrency=Limit(5), rate=Rate(100, per_s=60)"
                )
        if concurrency and rate and None not in (concurrency.key, rate.key) and concurrency.key != rate.key:
            self._refuse(
                f"its limits count by two keys, {concurrency.key!r} and {rate.key!r}", "an item has one: use the same"
            )
        keys = [limit.key for limit in (concurrency, rate) if limit is not None and limit.key is not None]
        object.__setattr__(self, "limit_key", keys[0] if keys else None)

    def _check_isolation(self) -> None:
        if self.isolation not in get_args(Isolation):
            self._refuse(f"isolation is {self.isolation!r}", "use 'none' or 'process'")
        if self.memory_mb is None:
            return
        if self.isolation != "process":
            self._refuse("memory_mb without a process", 'add isolation="process"')
        if self.memory_mb < MEMORY_LEAST_MB:
            self._refuse(f"memory_mb is {self.memory_mb!r}", f"pass MiB, at least {MEMORY_LEAST_MB}")

    def _refuse(self, what: str, hint: str) -> None:
        raise ConfigInvalid(f"{self.kind!r}: {what}", hint=hint)


def check_deadline(deadline_s: float | None) -> None:
    """Raises ConfigInvalid: if it is no time from now within a century."""
    if deadline_s is not None and not 0 < deadline_s <= _CENTURY_S:
        raise ConfigInvalid(f"deadline_s is {deadline_s!r}", hint="pass seconds, more than 0, at most a century")
