"""Which request is which, what it is taken to need, what its tokens cost; chunks and the whole they make."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from agentos.core.budget import Budget
from agentos.core.flows.asking import estimate
from agentos.core.identity import prompt_identity
from agentos.core.llm import Completion, Price, price_of, prices
from agentos.core.llm.request import ModelRequest
from agentos.core.llm.stream import gathering
from agentos.store.errors import ConfigInvalid, InvalidInput, InvalidValue

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"default": None}}}


def key(prompt: Any = HELLO, **more: Any) -> str:
    return ModelRequest("plan", prompt, more.pop("model", "m"), **more).identity("task-1").key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"parameters": {"temperature": 1.0, "n": 1}}, {"parameters": {"n": 1.0, "temperature": 1}}),
        ({"parameters": {"seed": None}}, {}),
        ({"prompt": [{"content": "hello", "role": "user", "name": None}]}, {}),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "x", "cache": None}]}]},
         {"prompt": [{"content": [{"text": "x", "type": "text"}], "role": "user"}]}),
        ({"tools": [TOOL | {"strict": None}]}, {"tools": [TOOL]}),
        ({"tools": ()}, {}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_the_same_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(**one) == key(**other)


def test_what_means_something_else_is_another_request() -> None:
    schema = {"type": "function", "function": {"name": "f", "parameters": {}}}
    requests: list[dict[str, Any]] = [
        {}, {"model": "n"}, {"parameters": {"temperature": 0}}, {"parameters": {"temperature": 1}},
        {"parameters": {"stream": True}}, {"parameters": {"stream": 1}}, {"tools": [TOOL]}, {"tools": [schema]},
        {"sample": 1}, {"scope": "shared"}, {"scope": "tenant:a"}, {"scope": "tenant:b"}, {"prompt": "hello"},
        {"prompt": [*HELLO, *HELLO]},
    ]  # fmt: skip
    assert len({key(**request) for request in requests}) == len(requests)


def test_a_plain_prompt_is_the_one_that_the_blocking_cache_knows() -> None:
    assert key("p") == prompt_identity("plan", "p", "m", "task-1").key


def test_a_shared_request_is_the_same_for_all_tasks_and_its_own_record_is_not() -> None:
    one, two = (ModelRequest("plan", "p", "m", scope="shared").identity(task) for task in ("a", "b"))
    assert one.key == two.key
    assert one.own_key != two.own_key
    assert len({key("p", scope="off") for _ in range(3)}) == 3


@pytest.mark.parametrize("scope", ["", "tenant", "tenant:", "everybody"])
def test_a_scope_that_is_not_known_is_refused(scope: str) -> None:
    with pytest.raises(InvalidInput, match="tenant:NAME"):
        key(scope=scope)


def test_an_estimate_is_by_the_prompts_size_and_the_maximum_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_LLM_PRICES", '{"m": {"input": "3", "output": 15}}')
    request = ModelRequest("plan", "x" * 3000, "m", parameters={"max_tokens": 500})
    tokens, cost = estimate(request).tokens, estimate(request).cost
    assert request.estimated_tokens()[1] == 500
    assert 1500 <= tokens <= 1520
    assert cost == (Decimal(3) * (tokens - 500) + 15 * 500) / 1_000_000
    assert estimate(ModelRequest("plan", "p", "other")).cost is None


def test_costs_are_exact() -> None:
    assert Price(Decimal("0.1"), Decimal("0.2")).of(1, 1) * 3_333_333 == Decimal("0.9999999")
    with pytest.raises(ConfigInvalid, match="not an exact number"):
        prices.read_prices({"m": {"input": 0.1, "output": 1}})


@pytest.mark.parametrize("text", ["[1]", "{", '{"m": 1}', '{"m": {"input": "-1", "output": 1}}', '{"m": {"input": 1}}'])
def test_prices_that_cannot_be_read_say_how_to_write_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_LLM_PRICES", text)
    with pytest.raises(ConfigInvalid, match="AGENTOS_LLM_PRICES"):
        price_of("m")


@pytest.mark.parametrize(
    "limits", [{}, {"max_cost": 0.1}, {"max_cost": "much"}, {"max_tokens": -1}, {"max_calls": 1, "on_exceed": "x"}]
)
def test_a_budget_that_makes_no_sense_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        Budget(**limits)


def end(text: str = "") -> Completion:
    return Completion(text, "m", 3, 2, "stop")


def blocking() -> Iterator[Any]:
    yield from ("a", "", "b", end())


async def awaited() -> AsyncIterator[Any]:
    for chunk in blocking():
        await asyncio.sleep(0)
        yield chunk


async def late() -> AsyncIterator[Any]:
    return awaited()


@pytest.mark.parametrize("generate", [awaited, late])
async def test_awaited_chunks_make_the_whole_and_are_told_as_they_come(generate: Any) -> None:
    told: list[str] = []
    made = gathering(generate, told.append)()
    made = await made
    assert (made.text, made.prompt_tokens, told) == ("ab", 3, ["a", "b"])


def test_blocking_chunks_make_the_whole_and_are_told_as_they_come() -> None:
    told: list[str] = []
    assert gathering(blocking, told.append)().text == "ab"
    assert told == ["a", "b"]
    assert gathering(lambda: iter("xy"))() == "xy"
    assert gathering(lambda: iter([end("whole")]), told.append)().text == "whole"
    assert told[2:] == ["whole"]
    assert gathering(lambda: ["x"])() == ["x"]  # a list is an output


def test_a_chunk_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidValue, match="int"):
        gathering(lambda: iter([1]))()
