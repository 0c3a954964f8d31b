"""What a model said, and the stand-in that says something about any prompt without a model."""

from dataclasses import asdict, dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

STAND_IN_MODEL = "stand-in"
_SHOWN_PROMPT = 80
_CUT_OFF = frozenset({"length", "max_tokens", "content_filter", "MAX_TOKENS", "SAFETY"})


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered. One that was cut off (`truncated`) is never cached.

    `text` can be stored as JSON in Postgres. `model` is the one that the endpoint says answered. The token counts are
    0 when the endpoint reports none. `finish_reason` is the endpoint's word, "unknown" when it has none. `tool_calls`:
    the tools that the model wants called, as the endpoint wrote them. `cost`: what the endpoint says it cost; None: by
    the model's price.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    cost: Decimal | None = None

    @property
    def truncated(self) -> bool:
        """Whether only a part of the answer came: the output limit was reached, or a filter stopped it."""
        return self.finish_reason in _CUT_OFF

    def as_dict(self) -> dict[str, Any]:
        """The completion as the LLM cache records it."""
        return asdict(self)


def stand_in_completion(prompt: str) -> Completion:
    """One line about `prompt`, the same each time, for when no endpoint is configured. Its `model` is "stand-in".

    A token is a word here: enough to show that counts are kept, and not to be mistaken for a bill.
    """
    words = prompt.split()
    subject = " ".join(words) or "an empty prompt"
    if len(subject) > _SHOWN_PROMPT:
        subject = subject[: _SHOWN_PROMPT - 1].rstrip() + "…"
    mark = sha256(prompt.encode("utf-8", errors="surrogatepass")).hexdigest()[:8]
    text = f"[stand-in model] {_storable(subject)} ({len(words)} words, {mark})"
    return Completion(text, STAND_IN_MODEL, len(words), len(text.split()), "stop")


def _storable(text: str) -> str:
    """`text` with U+FFFD for what JSON in Postgres cannot hold: NUL and lone surrogates."""
    whole = text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    return whole.replace("\x00", "\ufffd")


def whole_completion(text: str, model: str, prompt_tokens: int, completion_tokens: int, reason: str) -> Completion:
    """A Completion of what an endpoint sent, made storable."""
    return Completion(_storable(text), _storable(model), prompt_tokens, completion_tokens, _storable(reason))
