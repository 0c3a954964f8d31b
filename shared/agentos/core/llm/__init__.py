"""Asking a model: over an OpenAI-compatible endpoint, or of the stand-in that needs none."""

from agentos.core.llm.client import ChatClient, client_from_settings
from agentos.core.llm.completion import STAND_IN_MODEL, Completion, stand_in_completion
from agentos.core.llm.prices import Price, price_of, use_prices

__all__ = [
    "STAND_IN_MODEL", "ChatClient", "Completion", "Price", "client_from_settings", "price_of", "stand_in_completion",
    "use_prices",
]  # fmt: skip
