"""What a command may see of the worker's environment: everything but the keys to the database and other secrets."""

import os
import re
from collections.abc import Mapping

from agentos.store.redact import is_secret_key, redact

IDEMPOTENCY_KEY = "AGENTOS_IDEMPOTENCY_KEY"
"""The variable that carries the stable key of a tool call, for whoever can refuse the second of two equal calls."""

# Beside the words that make a secret in a log line (agentos.store.redact).
_SECRET_NAME = re.compile(r"^PG[A-Z]|DSN$|DATABASE_URL$|SECRET|(^|_)KEYS?$|_(PASS|PAT|AUTH)$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"https?://[^/\s]+@", re.IGNORECASE)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})


def clean_environment(
    extra: Mapping[str, str] | None = None,
    *,
    idempotency_key: str | None = None,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a command: `inherited` (default: this process's) without secrets, then `extra` as it is.

    Left out are AGENTOS_DSN, PG*, names that speak of keys, tokens, passwords, secrets or credentials, and values
    that look like one, such as a URL with a password in it. Whoever wants one of them in the command passes it on in
    `extra`.

    This keeps secrets out of logs and results by accident; it is no wall: a command runs as the user of its worker.
    """
    source = os.environ if inherited is None else inherited
    kept = {name: value for name, value in source.items() if not _is_secret(name, value)}
    kept.pop(IDEMPOTENCY_KEY, None)
    kept.update(extra or {})
    if idempotency_key is not None:
        kept[IDEMPOTENCY_KEY] = idempotency_key
    return kept


def _is_secret(name: str, value: str) -> bool:
    if name in _NO_SECRETS:
        return False
    named_so = _SECRET_NAME.search(name) or is_secret_key(name, value)
    return bool(named_so or _USER_IN_URL.search(value) or redact(value) != value)
