"""Secrets do not show, and what is no secret does."""

import enum
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from agentos.store.redact import MASK, is_secret_key, redact

CANARY = "c4nary-Value_0123456789"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjNG5hcnkifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "PGPASSWORD_PASSWORD",
        "api_key",
        "apiKey",
        "X-Api-Key",
        "apikey",
        "OPENAI_API_KEY",
        "token",
        "lease_token",
        "accessToken",
        "tokens",
        "Authorization",
        "client_secret",
        "AWS_SECRET_ACCESS_KEY",
        "dsn",
        "AGENTOS_DSN",
        "cookie",
        "Set-Cookie",
        "credentials",
        "passphrase",
        "private_key",
    ],
)
def test_a_value_under_a_secret_key_is_masked_at_any_depth(key: str) -> None:
    assert redact({"a": [{"b": ({key: CANARY, "kept": 1},)}]}) == {"a": [{"b": [{key: MASK, "kept": 1}]}]}
    assert redact({key: {"nested": CANARY}}) == {key: MASK}


@pytest.mark.parametrize(
    "key", ["task_id", "idempotency_key", "keyboard", "tokenizer", "secretary", "author", "path", "key", "monkey_key"]
)
def test_other_keys_stay(key: str) -> None:
    assert redact({key: "value"}) == {key: "value"}


def test_counts_of_tokens_stay_but_a_token_that_is_a_number_does_not() -> None:
    counts = {"max_tokens": 500, "tokens": 3, "token_count": 7, "tokens_saved": 1.5}
    assert redact(counts) == counts
    assert redact({"token": 12345, "lease_token": 6}) == {"token": MASK, "lease_token": MASK}
    assert redact({"password": None, "has_password": True}) == {"password": None, "has_password": True}
    assert is_secret_key("password", 1234)


@pytest.mark.parametrize(
    "secret",
    [
        f"sk-{CANARY}",
        f"sk-proj-{CANARY}",
        f"sk-ant-{CANARY}",
        "ghp_" + "a1" * 15,
        "AKIA" + "ABCD1234" * 2,
        JWT,
        PEM,
        "AIza" + "x" * 35,
        "xoxb-1234567890-abc",
        f"Bearer {CANARY}",
        "Basic dXNlcjpwYXNz",
        f"password={CANARY}",
        f"password = '{CANARY} two'",
        f'"api_key": "{CANARY}"',
        f"token: {CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"{{'PGPASSWORD': '{CANARY}'}}",
        PEM[:60],
    ],
)
def test_a_secret_in_a_text_is_masked_and_the_text_around_it_stays(secret: str) -> None:
    shown = redact(f"before {secret} after" if "BEGIN" not in secret else f"before {secret}")
    assert shown.startswith("before ")
    assert MASK in shown
    for part in (CANARY, CANARY[:10], "dXNlcjpwYXNz", "eyJ", "abc", "a1a1", "ABCD1234", "xxxx", "two"):
        assert part not in shown
    assert shown.endswith(" after") or "BEGIN" in secret


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@host:5432/db", "postgresql://u:[redacted]@host:5432/db"),
        ("postgresql://u:p@ss/w:rd@host/db", "postgresql://u:[redacted]@host/db"),
        ("postgresql://:pw@host/db", "postgresql://:[redacted]@host/db"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
        ("http://host:8080/path", "http://host:8080/path"),
        ("postgresql://host/db?user=u&password=pw&x=1", "postgresql://host/db?user=u&password=[redacted]&x=1"),
    ],
)
def test_a_url_keeps_everything_but_its_password(url: str, shown: str) -> None:
    assert redact(f"cannot reach {url}!") == f"cannot reach {shown}!"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError


class Colour(enum.Enum):
    RED = "red"


def test_objects_become_their_redacted_repr() -> None:
    assert redact(Login("me", CANARY)) == "Login(user='me', password=[redacted])"
    assert redact([Colour.RED, b"password=x1"])[0] == "<Colour.RED: 'red'>"
    assert redact(b"password=x1") == "b'password=[redacted]'"
    assert redact(ValueError(f"sk-{CANARY}")) == f"ValueError('{MASK}')"
    assert redact({"x": Unprintable()}) == {"x": "[Unprintable without a repr: LookupError]"}
    assert redact({1: "a", None: "b"}) == {"1": "a", "None": "b"}


def test_cycles_and_depth_end() -> None:
    cycle: dict[str, Any] = {"token": CANARY}
    cycle["self"] = [cycle, cycle]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert CANARY not in json.dumps(redact(cycle))
    assert "too deep" in json.dumps(redact(deep))


def test_the_value_that_was_passed_is_not_changed() -> None:
    value = {"password": "x", "list": [{"token": "y"}]}
    redact(value)
    assert value == {"password": "x", "list": [{"token": "y"}]}


def test_a_limit_cuts_a_text_but_never_a_secret_in_two() -> None:
    text = "a" * 90 + " postgresql://u:" + CANARY + "@host/db " + "b" * 9000
    shown = redact(text, limit=110)
    assert shown.startswith("a" * 90 + " postgresql://u:[r"[:20])
    assert "c4n" not in shown
    assert shown.endswith(f"({len(text)} characters)")
    assert redact("short", limit=110) == "short"


@pytest.mark.parametrize("part", ["a", "://", "://a:", "eyJ", "password=", "token='", "sk-", "bearer ", 'password="\\'])
def test_no_text_costs_more_than_one_pass(part: str) -> None:
    def seconds(size: int) -> float:
        text = part * (size // len(part))
        started = time.process_time()
        redact(text)
        return time.process_time() - started

    # Quadratic would be 64 times as long; the constant keeps tiny times from being a ratio of noise.
    assert seconds(160_000) < 16 * seconds(20_000) + 0.1
