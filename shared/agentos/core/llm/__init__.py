"""Asking a model: over an OpenAI-compatible endpoint, or of the stand-in that needs none."""

from agentos.core.llm.client import ChatClient, client_from_settings
from agentos.core.llm.completion import STAND_IN_MODEL, Completion, stand_in_completion

__all__ = ["STAND_IN_MODEL", "ChatClient", "Completion", "client_from_settings", "stand_in_completion"]
