"""A retry policy says when, whether and how often; what makes no sense is refused when it is declared."""

from typing import Any

import pytest

from agentos.core.app import App, NonRetryable, Retry, RetryAfter
from agentos.core.app.retry import decide
from agentos.store.errors import ConfigInvalid, InvalidInput, LLMUnavailable

STEADY = Retry(initial_s=2, factor=3, max_s=50, jitter=0)


def test_waits_grow_to_the_longest_and_no_further() -> None:
    assert [STEADY.delay_s(n) for n in (1, 2, 3, 4, 1000)] == [2, 6, 18, 50, 50]


def test_jitter_spreads_by_its_share() -> None:
    waits = [Retry(initial_s=100, max_s=100, jitter=0.5).delay_s(1) for _ in range(300)]
    assert 75 <= min(waits) < 90
    assert 110 < max(waits) <= 125


def test_never_wins_over_retry_on_and_what_is_not_named_is_not_retried() -> None:
    policy = Retry(retry_on=(OSError,), never=(FileNotFoundError,))
    assert decide(policy, ConnectionError(), 0).terminal is False
    assert decide(policy, FileNotFoundError(), 0).why == "never=FileNotFoundError"
    assert decide(policy, KeyError(), 0).terminal


def test_the_closest_class_decides_which_override_counts() -> None:
    policy = Retry(jitter=0, overrides={
        OSError: Retry(initial_s=10, jitter=0), ConnectionError: Retry(initial_s=20, jitter=0, max_attempts=2)
    })  # fmt: skip
    assert decide(policy, KeyError(), 0).delay_s == 1
    assert decide(policy, FileNotFoundError(), 0).delay_s == 10
    assert decide(policy, ConnectionResetError(), 0).delay_s == 20
    assert decide(policy, ConnectionResetError(), 1).terminal


def test_an_exception_may_say_it_itself() -> None:
    assert decide(STEADY, RetryAfter(77), 0).delay_s == 77
    assert decide(None, RetryAfter(77), 0).delay_s == 77
    assert decide(Retry(never=(RetryAfter,)), RetryAfter(77), 0).terminal
    assert decide(STEADY, NonRetryable("no"), 0).terminal
    limited = LLMUnavailable("busy")
    limited.wait_s = 33
    assert decide(STEADY, limited, 0).delay_s == 33
    assert decide(None, KeyError(), 0).delay_s is None


@pytest.mark.parametrize("seconds", [-1, float("nan"), 31 * 86_400])
def test_retry_after_takes_seconds_that_make_sense(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="RetryAfter"):
        RetryAfter(seconds)


@pytest.mark.parametrize("wrong", [
    {"initial_s": -1}, {"initial_s": 10, "max_s": 5}, {"factor": 0.5}, {"jitter": 2}, {"max_attempts": 0},
    {"max_attempts": "3"}, {"retry_on": OSError}, {"never": (3,)}, {"overrides": {OSError: 3}}, {"max_s": float("nan")},
])  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_when_it_is_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid, match="retry policy"):
        Retry(**wrong)
    with pytest.raises(ConfigInvalid, match="pass retry=Retry"):
        App().task("x", retry=5)  # type: ignore[arg-type]


def test_the_policy_says_how_often_unless_the_handler_does() -> None:
    app = App()
    app.task("a", retry=Retry(max_attempts=9))(print)
    app.task("b", retry=Retry(max_attempts=9), max_attempts=2)(print)
    assert (app.handlers["a"].max_attempts, app.handlers["b"].max_attempts) == (9, 2)
