"""The model that is asked when a handler does not bring its own: the configured endpoint, else the stand-in."""

from collections.abc import Callable
from typing import Any

from agentos.core.llm import STAND_IN_MODEL, Completion, client_from_settings, stand_in_completion
from agentos.store.settings import Settings


def configured_completion(settings: Settings) -> tuple[str, Callable[[Any], Any]]:
    """The model's name, and what asks it: `complete(prompt) -> Completion`, blocking.

    Raises ConfigInvalid: if only a part of AGENTOS_LLM_* is set.
    """
    if settings.llm_base_url is None and settings.llm_model is None:
        return STAND_IN_MODEL, _stand_in
    client = client_from_settings(settings)
    return settings.llm_model or "", client.complete


def _stand_in(prompt: Any, **_more: Any) -> Completion:
    return stand_in_completion(prompt if isinstance(prompt, str) else repr(prompt))
