"""When a handler that raised runs again: a policy declared with it, and what an exception itself says."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentos.store.errors import (
    ConfigInvalid,
    InvalidInput,
    LLMUnavailable,
    NonRetryable,
    ReplayError,
    RetryAfter,
)

TERMINAL = (InvalidInput, NonRetryable, ReplayError)
"""Errors that no retry can mend, whatever a policy says."""
LONGEST_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`initial_s` seconds after the first failure, `factor` times as many after each further one, at most `max_s`,
    spread by the share `jitter` (0.25: by an eighth up or down). `max_attempts`: how often it may raise in all.

    `retry_on`: only these exceptions are retried; empty: all. `never`: these fail the item at once; it wins.
    `overrides`: another policy for an exception class; the closest class of the exception counts.
    Raises ConfigInvalid: if a value makes no sense.
    """

    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.25
    max_attempts: int = 5
    retry_on: tuple[type[BaseException], ...] = ()
    never: tuple[type[BaseException], ...] = ()
    overrides: Mapping[type[BaseException], "Retry"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise ConfigInvalid(f"this retry policy cannot be used: {wrong}", hint="see help(agentos.core.app.Retry)")

    def _wrong(self) -> str | None:
        if not all(_is_number(each) for each in (self.initial_s, self.factor, self.max_s, self.jitter)):
            return "initial_s, factor, max_s and jitter are numbers"
        if not 0 <= self.initial_s <= self.max_s <= LONGEST_S:
            return f"initial_s is {self.initial_s:g} and max_s {self.max_s:g}: 0 <= initial_s <= max_s <= {LONGEST_S:g}"
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            return f"factor is {self.factor:g} (at least 1), jitter {self.jitter:g} (0 to 1)"
        if not _is_number(self.max_attempts) or not 1 <= self.max_attempts <= 1000:
            return f"max_attempts is {self.max_attempts!r} (1 to 1000)"
        named: list[tuple[str, Any]] = [
            ("retry_on", self.retry_on),
            ("never", self.never),
            ("overrides", tuple(self.overrides)),
        ]
        for name, classes in named:
            if not isinstance(classes, tuple) or not all(_is_exception(each) for each in classes):
                return f"{name} takes classes of exceptions, it is {classes!r:.100}"
        if not all(isinstance(each, Retry) for each in self.overrides.values()):
            return "overrides takes a Retry for each class"
        return None

    def delay_s(self, failures: int) -> float:
        """Seconds until the next try after so many failures (from 1)."""
        try:
            wait_s = min(self.max_s, self.initial_s * self.factor ** (failures - 1))
        except OverflowError:
            wait_s = self.max_s
        return wait_s * (1 + self.jitter * (random.random() - 0.5))

    def for_exception(self, exc: BaseException) -> "Retry":
        """This policy, or the override for the closest class of the exception."""
        return next((self.overrides[each] for each in type(exc).__mro__ if each in self.overrides), self)


@dataclass(frozen=True, slots=True)
class Decision:
    """`terminal`: the item fails now. `delay_s`: seconds until the next try, None: as the engine has it. `why`: for
    people, None where there is nothing to add.
    """

    terminal: bool
    delay_s: float | None = None
    why: str | None = None


def decide(retry: Retry | None, exc: BaseException, failures: int) -> Decision:
    """What becomes of an item whose handler raised `exc` after `failures` earlier failures."""
    if isinstance(exc, TERMINAL):
        return Decision(terminal=True, why=f"{type(exc).__name__} is never retried")
    policy = None if retry is None else retry.for_exception(exc)
    if policy is not None:
        if isinstance(exc, policy.never):
            return Decision(terminal=True, why=f"never={_name(exc, policy.never)}")
        if policy.retry_on and not isinstance(exc, policy.retry_on):
            return Decision(terminal=True, why=f"{type(exc).__name__} is not in retry_on")
        if policy is not retry and failures + 1 >= policy.max_attempts:
            return Decision(terminal=True, why=f"max_attempts={policy.max_attempts} for {type(exc).__name__}")
    if isinstance(exc, RetryAfter):
        return Decision(terminal=False, delay_s=exc.wait_s, why=f"RetryAfter({exc.wait_s:g})")
    delay_s = None if policy is None else policy.delay_s(failures + 1)
    if isinstance(exc, LLMUnavailable) and exc.wait_s is not None and exc.wait_s > (delay_s or 0):
        return Decision(terminal=False, delay_s=min(exc.wait_s, LONGEST_S), why="the endpoint asks to wait")
    return Decision(terminal=False, delay_s=delay_s)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124  not NaN


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _name(exc: BaseException, classes: tuple[type[BaseException], ...]) -> str:
    return next(each.__name__ for each in classes if isinstance(exc, each))
