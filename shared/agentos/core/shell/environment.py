"""What a command may see of the worker's environment: a short list of names, and nothing that looks like a secret."""

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence

from agentos.store.redact import is_secret_key, redact

IDEMPOTENCY_KEY = "AGENTOS_IDEMPOTENCY_KEY"
"""The variable that carries the stable key of a tool call, for whoever can refuse the second of two equal calls."""

ALLOWED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "TERM",
    "COLUMNS", "LINES", "NO_COLOR", "CI", "EDITOR", "PAGER", "XDG_*", "VIRTUAL_ENV", "PYTHON*", "NODE_PATH", "GOPATH",
    "GOCACHE", "JAVA_HOME", "CARGO_HOME", "RUSTUP_HOME", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH", "MANPATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "SOURCE_DATE_EPOCH",
)  # fmt: skip
"""Names (or patterns of names) that a command inherits; AGENTOS_SHELL_ENV adds to them."""

# Beside the words that make a secret in a log line (agentos.store.redact).
_SECRET_NAME = re.compile(r"^PG[A-Z]|DSN$|DATABASE_URL$|SECRET|(^|_)KEYS?$|_(PASS|PAT|AUTH)$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"https?://[^/\s]+@", re.IGNORECASE)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
_NEVER = re.compile(r"^(PG[A-Z]+|AGENTOS_DSN)$", re.IGNORECASE)


def clean_environment(
    extra: Mapping[str, str] | None = None,
    *,
    idempotency_key: str | None = None,
    inherited: Mapping[str, str] | None = None,
    allowed: Sequence[str] = (),
) -> dict[str, str]:
    """The environment of a command: of `inherited` (default: this process's) what is on the list `ALLOWED` and looks
    like no secret, then what `allowed` names besides, then `extra` as it is.

    `allowed`: names, or patterns such as `MYAPP_*`. A full name is passed on whatever it holds, a pattern only what
    looks like no secret; AGENTOS_DSN and PG* never. Whoever wants one of those in a command says so in `extra`.
    """
    source = os.environ if inherited is None else inherited
    named = {name for name in allowed if not _NEVER.match(name)}
    kept = {
        name: value for name, value in source.items()
        if name in named or (_matches(name, (*ALLOWED, *allowed)) and not _is_secret(name, value))
    }  # fmt: skip
    kept.pop(IDEMPOTENCY_KEY, None)
    kept.update(extra or {})
    if idempotency_key is not None:
        kept[IDEMPOTENCY_KEY] = idempotency_key
    return kept


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_secret(name: str, value: str) -> bool:
    if name in _NO_SECRETS:
        return False
    named_so = _NEVER.match(name) or _SECRET_NAME.search(name) or is_secret_key(name, value)
    return bool(named_so or _USER_IN_URL.search(value) or redact(value) != value)
