"""Reading what an endpoint sent: a whole completion, or an error that says what to do about it. No network here."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from agentos.core.llm.completion import Completion, whole_completion
from agentos.store.errors import LLMError, LLMUnavailable, OutputTruncated
from agentos.store.redact import redact

LONGEST_WAIT_S = 30.0
"""Seconds that a call waits at most because an endpoint asks for it (Retry-After)."""
_SHOWN = 500
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_REFUSED = frozenset({401, 403})
_CHECK_URL = "check AGENTOS_LLM_BASE_URL: it ends with the version, as in https://host/v1"
_HINTS = {
    400: "check AGENTOS_LLM_MODEL, and that the prompt fits the model's context",
    404: f"check AGENTOS_LLM_MODEL; {_CHECK_URL}",
    413: "the prompt is too large for this endpoint: make it shorter",
    429: "the endpoint limits calls: lower --concurrency, or raise the limit of the account",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, read to its end. Header names are lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def read_completion(answer: Answer, *, model: str, api_key: str | None) -> Completion:
    """The completion in `answer`. `model` is the one asked for; `api_key` is kept out of the errors.

    Raises LLMError: if it is an error, no JSON, no chat completion, or empty. OutputTruncated: if it was cut off.
    """
    if not HTTPStatus(200) <= answer.status < HTTPStatus(300):
        raise _http_error(answer, api_key)
    document = _document(answer.body)
    if document is None:
        raise LLMError(f"{answer.url} did not answer with JSON", hint=_CHECK_URL, detail=_said(answer, api_key))
    if document.get("error"):
        raise LLMError(f"{answer.url} answered with an error", hint=_HINTS[400], detail=_said(answer, api_key))
    try:
        choice = document["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise LLMError(
            f"{answer.url} did not answer with a chat completion", hint=_CHECK_URL, detail=_said(answer, api_key)
        ) from None
    reason, tool_calls = str(choice.get("finish_reason") or "unknown"), _tool_calls(choice["message"])
    usage = document.get("usage")
    made = whole_completion(
        text if isinstance(text, str) else "",
        str(document.get("model") or model),
        _tokens(usage, "prompt_tokens"),
        _tokens(usage, "completion_tokens"),
        reason,
    )
    _refuse_part(answer.url, made)
    if not made.text.strip() and not tool_calls:
        raise LLMError(
            f"the answer of {answer.url} has no text (finish_reason: {reason})", hint="change the prompt, or the model"
        )
    return replace(made, tool_calls=tool_calls)


def _tool_calls(message: Any) -> tuple[dict[str, Any], ...]:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return tuple(each for each in calls if isinstance(each, dict)) if isinstance(calls, list) else ()


def _refuse_part(url: str, made: Completion) -> None:
    if not made.truncated:
        return
    error = OutputTruncated(
        f"the answer of {url} was cut off at the model's output limit (finish_reason: {made.finish_reason})",
        hint="ask for a shorter answer, split the work, or use a model with a larger output limit",
        detail="A part of an answer is not used and not cached.",
    )
    if made.finish_reason == "content_filter":
        error = OutputTruncated(
            f"the answer of {url} was stopped by its content filter", hint="change the prompt, or the model"
        )
    error.completion = made
    raise error


def _http_error(answer: Answer, api_key: str | None) -> LLMError:
    said = _said(answer, api_key)
    message = f"{answer.url} answered {answer.status} {_phrase(answer.status)}".rstrip()
    if answer.status in _REFUSED:
        hint = "check AGENTOS_LLM_API_KEY" if api_key else "set AGENTOS_LLM_API_KEY: no key was sent"
        return LLMError(message, hint=hint, detail=said)
    if HTTPStatus(300) <= answer.status < HTTPStatus(400):
        where = redact(answer.headers.get("location", "nowhere"))
        return LLMError(f"{message}, a redirect to {where}", hint="set AGENTOS_LLM_BASE_URL to where it leads")
    if answer.status not in _TEMPORARY or _quota_is_used_up(answer.body):
        return LLMError(message, hint=_HINTS.get(answer.status, _CHECK_URL), detail=said)
    wait_s = _retry_after(answer.headers.get("retry-after"))
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        return LLMError(message, hint=f"the endpoint asks to come back in {wait_s:.0f} s", detail=said)
    hint = _HINTS.get(answer.status, "the endpoint has a problem of its own; try again later")
    error = LLMUnavailable(message, hint=hint, detail=said)
    error.wait_s = wait_s
    return error


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _quota_is_used_up(body: bytes) -> bool:
    """Some endpoints say 429 for an account without money, which no waiting mends."""
    error = (_document(body) or {}).get("error")
    return isinstance(error, dict) and error.get("code") == "insufficient_quota"


def _said(answer: Answer, api_key: str | None) -> str | None:
    error = (_document(answer.body) or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else answer.body[: 4 * _SHOWN].decode("utf-8", errors="replace")
    if api_key:
        text = text.replace(api_key, "[redacted]")
    text = " ".join(str(redact(text, limit=_SHOWN)).split())
    return f"It said: {text}" if text else None


def _tokens(usage: object, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
