"""Submits with the same options have one shape; what differs in the least has another, or is refused as ever."""

from typing import Any

import pytest

from agentos.core.app import App, TaskContext
from agentos.core.app.shape import shape_of
from agentos.core.budget import Budget
from agentos.store.errors import AgentOSError, ConfigInvalid, InvalidInput, InvalidValue


@pytest.fixture
def app(database_dsn: str) -> App:
    made = App(dsn=database_dsn)

    @made.task("noop", max_attempts=3, timeout_s=9)
    async def noop(ctx: TaskContext, n: int = 0) -> None:
        """Nothing."""

    return made


def shape(app: App, **options: Any) -> Any:
    asked = {
        "kind": "noop", "title": None, "queue": None, "priority": 0, "delay_s": 0.0, "max_attempts": None,
        "budget": None, "deadline_s": None, "version": None, "tenant": "", "limit_key": "",
    } | options  # fmt: skip
    return shape_of(app.handlers["noop"], *asked.values())


def test_the_same_options_have_the_same_shape_and_others_another(app: App) -> None:
    assert shape(app) is shape(app)
    others: list[dict[str, Any]] = [
        {"title": "t"}, {"queue": "q"}, {"priority": 1}, {"delay_s": 1.5}, {"max_attempts": 2}, {"tenant": "a"},
        {"limit_key": "k"},
    ]  # fmt: skip
    assert len({id(shape(app, **each)) for each in [{}, *others]}) == len(others) + 1


def test_what_has_more_to_say_is_not_sent_as_a_form(app: App) -> None:
    assert shape(app).form is not None
    assert shape(app, budget=Budget(max_calls=1)).form is None
    assert shape(app, deadline_s=5).form is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_attempts": 0}, InvalidInput), ({"version": True}, InvalidInput), ({"version": -1}, InvalidInput),
        ({"deadline_s": -1}, ConfigInvalid), ({"tenant": ["a"]}, InvalidInput), ({"tenant": "x" * 300}, InvalidInput),
        ({"queue": "a\0b"}, InvalidValue), ({"title": "a\ud800b"}, InvalidValue), ({"task_id": "a\0b"}, InvalidValue),
        ({"priority": 2**40}, InvalidValue), ({"delay_s": float("nan")}, AgentOSError),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_each_time_also_after_a_submit_that_was_right(
    app: App, options: dict[str, Any], error: type[AgentOSError]
) -> None:
    app.submit("noop", {"n": 1}, version=0, max_attempts=1)
    for _ in range(2):
        with pytest.raises(error):
            app.submit("noop", {"n": 1}, **options)
