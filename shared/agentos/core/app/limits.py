"""How much of a kind may run or start at once: declared with its handler, held for all workers together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentos.store.calls import flow
from agentos.store.canonical import canonical_text
from agentos.store.errors import ConfigInvalid, InvalidInput
from agentos.store.run import Call

if TYPE_CHECKING:
    from agentos.core.app.handler import Handler

KEY_LIMIT = 255
MOST = 1_000_000
PERIOD_MOST_S = 366 * 86_400.0
RATE_MOST = 10_000
"""Every item claimed within the period is a row that claims under the same limit count."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` items of the kind are held at once; with `key` (a name in the payload) for each of its values.

    Raises ConfigInvalid: if `most` is not 0 to 1,000,000.
    """

    most: int
    key: str | None = None

    def __post_init__(self) -> None:
        """Check it."""
        _check("Limit", self.most, MOST)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `most` items of the kind are claimed within any `per_s` seconds; with `key` for each of its values.

    Raises ConfigInvalid: if `most` is not 0 to 10,000, or `per_s` not above 0 and at most a year.
    """

    most: int
    per_s: float
    key: str | None = None

    def __post_init__(self) -> None:
        """Check it."""
        _check("Rate", self.most, RATE_MOST)
        if not 0 < self.per_s <= PERIOD_MOST_S:
            raise ConfigInvalid(f"Rate: per_s is {self.per_s!r}", hint="pass seconds, above 0, at most a year")


def _check(what: str, most: object, limit: int) -> None:
    if not isinstance(most, int) or isinstance(most, bool) or not 0 <= most <= limit:
        raise ConfigInvalid(f"{what}: most is {most!r:.40}", hint=f"pass a whole number from 0 to {limit}")


def declarations(handlers: Mapping[str, "Handler"]) -> list[Call[bool]]:
    """The calls that make what these handlers declare hold. What an operator has set stands over it."""
    calls = []
    for kind, handler in sorted(handlers.items()):
        limit, rate = handler.concurrency, handler.rate
        if limit is not None:
            calls.append(flow.set_limit("kind", kind, "concurrency", limit.most, per=_per(limit.key), declared=True))
        if rate is not None:
            calls.append(
                flow.set_limit(
                    "kind", kind, "rate", rate.most, per=_per(rate.key), period_s=float(rate.per_s), declared=True
                )
            )
    return calls


def _per(key: str | None) -> flow.Per:
    return "all" if key is None else "key"


def limit_key_of(handler: "Handler | None", payload: Mapping[str, Any], given: str | None) -> str:
    """What the item's limits per key count it by; "": none do. Raises InvalidInput: if it is longer than 255."""
    name = handler.limit_key if handler is not None else None
    if given is None and (name is None or payload.get(name) is None):
        return ""
    value = payload[name] if given is None and name is not None else given
    return checked_key(value if isinstance(value, str) else canonical_text(value), "concurrency_key")


def checked_key(key: object, what: str) -> str:
    """Raises InvalidInput: if it is not a text of at most 255 characters."""
    if not isinstance(key, str) or len(key) > KEY_LIMIT or "\0" in key:
        raise InvalidInput(f"{what} is {key!r:.80}", hint=f"pass a text of at most {KEY_LIMIT} characters")
    return key
