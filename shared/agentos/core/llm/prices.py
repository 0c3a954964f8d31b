"""What tokens cost: prices per model, exact decimals, in whatever currency they are written."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from json import JSONDecodeError, loads
from typing import Any

from agentos.core.llm.completion import STAND_IN_MODEL
from agentos.store.errors import ConfigInvalid

ANY_MODEL = "*"
_HINT = 'write AGENTOS_LLM_PRICES as {"model": {"input": "2.50", "output": "10"}}: the price of a million tokens each'


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a million prompt tokens and of a million completion tokens."""

    input: Decimal
    output: Decimal

    def of(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """What so many tokens cost, exactly."""
        return (self.input * prompt_tokens + self.output * completion_tokens).scaleb(-6)


_lock = threading.Lock()
_given: dict[str, Price] = {}


def read_prices(given: Mapping[str, Any]) -> dict[str, Price]:
    """Prices from {"model": {"input": "2.50", "output": "10"}}; a model "*" stands for all that are not named.

    Raises ConfigInvalid: if one is no exact number of 0 or more (a float is not exact: write it as text).
    """
    return {model: _price(model, price) for model, price in given.items()}


def use_prices(given: Mapping[str, Any]) -> None:
    """Use these prices in this process, before those of AGENTOS_LLM_PRICES. Raises ConfigInvalid, as `read_prices`."""
    prices = read_prices(given)
    with _lock:
        _given.update(prices)


def price_of(model: str) -> Price | None:
    """The price of a model; None: it is not known. The stand-in costs nothing.

    Raises ConfigInvalid: if AGENTOS_LLM_PRICES cannot be read.
    """
    configured = _configured(os.environ.get("AGENTOS_LLM_PRICES"))  # the settings take a thousand times as long
    known = {STAND_IN_MODEL: Price(Decimal(0), Decimal(0)), **configured, **_given}
    return known.get(model) or known.get(ANY_MODEL)


_read: dict[str, dict[str, Price]] = {}


def _configured(text: str | None) -> dict[str, Price]:
    if not text:
        return {}
    if text not in _read:
        try:
            document = loads(text, parse_float=Decimal)
        except JSONDecodeError as exc:
            raise ConfigInvalid(f"AGENTOS_LLM_PRICES is not JSON: {exc.msg}", hint=_HINT) from None
        if not isinstance(document, dict):
            raise ConfigInvalid("AGENTOS_LLM_PRICES is no JSON object", hint=_HINT)
        _read[text] = read_prices(document)
    return _read[text]


def _price(model: str, given: Any) -> Price:
    if isinstance(given, Price):
        return given
    if not isinstance(given, Mapping) or not {"input", "output"} == set(given):
        raise ConfigInvalid(f"the price of {model!r} is {given!r:.80}", hint=_HINT)
    return Price(_exact(model, given["input"]), _exact(model, given["output"]))


def _exact(model: str, value: Any) -> Decimal:
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and number >= 0:
            return number
    raise ConfigInvalid(f"the price of {model!r} has {value!r:.40}, not an exact number of 0 or more", hint=_HINT)
