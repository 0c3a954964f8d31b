"""Takes secrets out of anything that a person or a log file is going to see.

By key: what a mapping holds under a word such as password, token, api_key, authorization or dsn is replaced whole.
By pattern, in every other text: keys of well-known services, JWTs, private keys, bearer tokens, the password inside a
URL, and `password=…` or `"api_key": "…"` inside a longer text. Rather one word too many than one too few.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

MASK = "[redacted]"
_MAX_DEPTH = 30
_LOOK_AHEAD = 1024

_SECRET_WORDS = frozenset(
    {"apikey", "authorization", "cookie", "credential", "credentials", "dsn", "passphrase", "passwd", "password", "pwd"}
    | {"secret", "secrets", "token", "tokens"}
)
_SECRET_PAIRS = frozenset(f"{first}_key" for first in ("access", "api", "encryption", "private", "secret", "signing"))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Each part is anchored at a literal and bounded: a text of 8 MiB must not cost more than one pass.
_IN_TEXT = re.compile(
    r"""
      -----BEGIN\ [A-Z ]{0,40}PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]{0,40}PRIVATE\ KEY-----|\Z)
    | \beyJ[\w-]{5,4096}\.[\w-]{5,8192}(?:\.[\w-]{0,4096})?             # JWT
    | \b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,256}                           # OpenAI, Anthropic, Stripe
    | \bgh[opsur]_[A-Za-z0-9]{20,255} | \bgithub_pat_\w{20,255} | \bglpat-[\w-]{16,255}
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b | \bAIza[\w-]{30,60} | \bxox[abeoprs]-[\w-]{10,255} | \bhf_[A-Za-z0-9]{20,255}
    | (?P<url>://[^\s:/@?\#'"]{0,255}:)[^\s'"]{1,1024}(?=@)             # scheme://user:PASSWORD@host
    | (?P<scheme>\b(?:Bearer|Basic)\ +)[\w.~+/=-]{6,8192}
    | (?P<name>(?:api[_-]?key|access[_-]?key|authorization|passphrase|passwd|password|secret(?:[_-]?key)?|token)
         ["']?\s{0,3}[=:]\s{0,3})
      (?!Bearer|Basic|\[redacted)(?:"(?:[^"\\]|\\.){0,8192}"? | '(?:[^'\\]|\\.){0,8192}'? | [^\s,;&"'})\]]{1,8192})
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def redact(value: Any, *, limit: int | None = None) -> Any:
    """`value` without its secrets, made of plain data: dict, list, str, int, float, bool, None. Never raises.

    An object of any other class becomes its redacted `repr`. The value passed is not changed. `limit`: characters kept
    of each text; default: all of them.
    """
    return _redact(value, limit, ())


def is_secret_key(key: str, value: object = "") -> bool:
    """True if `value` must not be shown under this `key`. Counts such as `max_tokens=500` may be."""
    if value is None or isinstance(value, bool):
        return False
    found, is_token = _secret_words(key)
    is_count = isinstance(value, int | float) and not is_token
    return bool(found) and not (is_count and found <= {"token", "tokens"})


@lru_cache(maxsize=4096)  # the keys of log lines are few and come again
def _secret_words(key: str) -> tuple[frozenset[str], bool]:
    words = [word.lower() for word in _WORD.findall(key)]
    pairs = {f"{first}_{second}" for first, second in pairwise(words)}
    return _SECRET_WORDS.intersection(words) | _SECRET_PAIRS.intersection(pairs), words[-1:] == ["token"]


def _redact(value: Any, limit: int | None, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _redact_text(value, limit)
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return _redact_text(_repr(value), limit)
    if id(value) in above or len(above) > _MAX_DEPTH:
        return "[cycle or too deep]"
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return _redact_items(list(value.items()), limit, inside)  # a copy: another thread may be changing it
    return [_redact(item, limit, inside) for item in list(value)]


def _redact_items(items: list[tuple[Any, Any]], limit: int | None, above: tuple[int, ...]) -> dict[str, Any]:
    shown = {}
    for key, value in items:
        name = key if isinstance(key, str) else _repr(key)
        shown[_redact_text(name, limit)] = MASK if is_secret_key(name, value) else _redact(value, limit, above)
    return shown


def _redact_text(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return _IN_TEXT.sub(_mask, text)
    # Looks a little further than it shows: a secret cut in two is not recognised.
    shown = _IN_TEXT.sub(_mask, text[: limit + _LOOK_AHEAD])[:limit]
    return f"{shown}… ({len(text)} characters)"


def _mask(found: re.Match[str]) -> str:
    kept = found["url"] or found["scheme"] or found["name"] or ""
    return f"{kept}{MASK}"


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a repr of somebody else's class must not stop a log line
        return f"[{type(value).__name__} without a repr: {type(error).__name__}]"
