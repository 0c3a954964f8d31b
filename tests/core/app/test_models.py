"""Models asked by handlers of a real worker: streamed, cut off, shared, budgeted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import outcome, serving

from agentos.core.app import App, BlockingContext, Budget, Completion, TaskContext
from agentos.core.llm import prices
from agentos.store.calls import budgets
from agentos.store.calls.budgets import Limits
from agentos.store.connect import AsyncDatabase
from agentos.store.errors import ConfigInvalid, TaskFailed

PRICES = {"m": {"input": "1000000", "output": "1000000"}}  # one a token


@pytest.fixture
def app(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(prices, "_given", {})
    return App(dsn=database_dsn, prices=PRICES)


def completion(text: str = "tea", reason: str = "stop", tokens: tuple[int, int] = (3, 2)) -> Completion:
    return Completion(text, "m", *tokens, reason)


async def stream(_prompt: Any) -> AsyncIterator[Any]:
    for text in ("te", "a"):
        await asyncio.sleep(0)
        yield text
    yield completion("")


async def run(app: App, dsn: str, kind: str, payload: dict[str, Any] | None = None, **more: Any) -> Any:
    handle = app.submit(kind, payload or {}, **more)
    async with serving(app, dsn):
        return await outcome(handle)


async def test_chunks_are_consumed_live_and_a_replay_yields_the_whole(app: App, database_dsn: str) -> None:
    @app.task("streams")
    async def streams(ctx: TaskContext) -> list[list[str]]:
        return [[text async for text in ctx.llm_stream("plan", prompt="p", model="m", generate=stream)] for _ in "ab"]

    assert await run(app, database_dsn, "streams") == [["te", "a"], ["tea"]]


async def test_a_plain_handler_streams_too(app: App, database_dsn: str) -> None:
    def chunks(_prompt: Any) -> Iterator[str]:
        yield from ("x", "y")

    @app.task("streams")
    def streams(ctx: BlockingContext) -> list[Any]:
        live = [list(ctx.llm_stream("plan", prompt="p", model="m", generate=make)) for make in (stream, chunks)]
        told: list[str] = []
        whole = ctx.llm("plan", prompt="q", model="m", generate=chunks, on_token=told.append)
        return [live, whole, told]

    assert await run(app, database_dsn, "streams") == [[["te", "a"], ["tea"]], "xy", ["x", "y"]]


@pytest.mark.parametrize("ends", ["raises", "stops"])
async def test_a_stream_that_does_not_end_leaves_no_record(app: App, database_dsn: str, ends: str) -> None:
    calls = 0

    async def breaks(_prompt: Any) -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        yield "half"
        if calls == 1:
            raise OSError("the line broke")
        yield " whole"

    @app.task("streams")
    async def streams(ctx: TaskContext) -> list[str]:
        try:
            async for _ in ctx.llm_stream("plan", prompt="p", model="m", generate=breaks):
                if ends == "stops":
                    raise OSError("enough")
        except OSError:
            pass
        return [text async for text in ctx.llm_stream("plan", prompt="p", model="m", generate=breaks)]

    assert await run(app, database_dsn, "streams") == ["half", " whole"]


async def test_an_output_that_was_cut_off_is_never_cached_and_always_counted(
    app: App, database_dsn: str, adb: AsyncDatabase, conn: psycopg.Connection[Any]
) -> None:
    @app.task("cut")
    async def cut(ctx: TaskContext, allowed: bool) -> list[str]:
        def make(_prompt: Any) -> Completion:
            return completion("half a", "length")

        return [await ctx.llm("plan", prompt="p", model="m", generate=make, allow_truncated=allowed) for _ in "ab"]

    assert await run(app, database_dsn, "cut", {"allowed": True}) == ["half a", "half a"]
    refused = await run(app, database_dsn, "cut", {"allowed": False})
    assert isinstance(refused, TaskFailed)
    assert "cut off after 2 tokens" in str(refused)
    assert conn.execute("SELECT count(*) FROM agentos.llm_cache").fetchone() == (0,)
    (used,) = await adb.run(budgets.usage_of(["model"]))
    assert (used.calls, used.cost, used.prompt_tokens) == (3, Decimal(15), 9)


async def test_tools_and_parameters_reach_the_model_and_tool_calls_come_back(app: App, database_dsn: str) -> None:
    seen: list[Any] = []

    @app.task("asks")
    async def asks(ctx: TaskContext) -> Any:
        async def make(prompt: Any, *, tools: Any, parameters: Any) -> Completion:
            seen.append((prompt, tools, parameters))
            return Completion("", "m", 1, 1, "tool_calls", ({"id": "1", "function": {"name": "f"}},))

        messages = [{"role": "user", "content": "hello"}]
        asked: dict[str, Any] = {"prompt": messages, "tools": [{"name": "f"}], "parameters": {"temperature": 0}}
        return [await ctx.llm("plan", model="m", generate=make, **asked) for _ in "ab"]

    answer = {"content": "", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    assert await run(app, database_dsn, "asks") == [answer, answer]
    assert seen == [([{"role": "user", "content": "hello"}], [{"name": "f"}], {"temperature": 0})]


@pytest.mark.parametrize(("scope", "made"), [("task", 2), ("shared", 1), ("tenant:a", 1), ("off", 4)])
async def test_an_output_is_shared_as_far_as_its_scope_says(app: App, database_dsn: str, scope: str, made: int) -> None:
    calls: list[int] = []

    @app.task("asks")
    async def asks(ctx: TaskContext) -> list[Any]:
        def make(_prompt: Any) -> Completion:
            calls.append(1)
            return completion()

        return [await ctx.llm("plan", prompt="p", model="m", generate=make, scope=scope) for _ in "ab"]

    for _ in "ab":
        assert await run(app, database_dsn, "asks") == ["tea", "tea"]
    assert len(calls) == made


@pytest.fixture
def spends(app: App) -> Callable[..., None]:
    def register(**options: Any) -> None:
        @app.task("spends", **options)
        async def spends(ctx: TaskContext, calls: int = 3) -> int:
            for n in range(calls):
                await ctx.llm("plan", prompt=n, model="m", generate=lambda _: completion(), parameters=LIMITED)
            return calls

    return register


LIMITED = {"max_tokens": 2}


async def test_a_task_fails_with_the_limit_that_it_exceeded_when_so_declared(
    app: App, database_dsn: str, spends: Any, adb: AsyncDatabase
) -> None:
    spends(budget=Budget(max_cost=26, on_exceed="fail"))
    failed = await run(app, database_dsn, "spends", task_id="t")
    assert isinstance(failed, TaskFailed)
    assert "max_cost of task t is 26, 10 is spent" in str(failed)
    (line,) = await adb.run(budgets.budget_of("t"))
    assert (line.spent, line.reserved) == (Decimal(10), Decimal(0))


async def test_a_parked_task_goes_on_when_its_budget_is_raised_and_pays_nothing_twice(
    app: App, database_dsn: str, spends: Any, adb: AsyncDatabase
) -> None:
    spends()
    handle = app.submit("spends", {"calls": 4}, budget=Budget(max_calls=2), task_id="t")
    async with serving(app, database_dsn):
        while handle.status() != "waiting":  # noqa: ASYNC110  the worker parks it
            await asyncio.sleep(0.01)
        assert len(await adb.run(budgets.raise_budget("t", Limits(calls=2)))) == 1
        assert await outcome(handle) == 4
    (used,) = await adb.run(budgets.usage_of(["task"]))
    assert (used.calls, used.cost, used.saved_calls, used.saved_cost) == (4, Decimal(20), 2, Decimal(10))


async def test_items_of_one_task_side_by_side_never_spend_more_than_it_may(
    app: App, database_dsn: str, spends: Any, adb: AsyncDatabase
) -> None:
    @app.task("crowd", budget=Budget(max_tokens=600, max_cost=Decimal(40)))
    async def crowd(ctx: TaskContext) -> None:
        async def one(n: int) -> None:
            async def make(_prompt: Any) -> Completion:
                await asyncio.sleep(0)
                return completion()

            await ctx.llm("plan", prompt=n, model="m", generate=make, parameters=LIMITED)

        await asyncio.gather(*(one(n) for n in range(20)))

    handle = app.submit("crowd", task_id="t")
    async with serving(app, database_dsn):
        while handle.status() != "waiting":  # noqa: ASYNC110  the worker parks it
            await asyncio.sleep(0.01)
    spent = {line.name: line.spent for line in await adb.run(budgets.budget_of("t"))}
    assert 20 <= spent["max_cost"] <= 40


async def test_many_tasks_get_the_budget_of_their_handler(app: App, spends: Any, adb: AsyncDatabase) -> None:
    spends(budget=Budget(max_tokens=5))
    app.submit_many("spends", [{"calls": n} for n in range(3)], task_ids=["a", "b", "c"])
    assert {(await adb.run(budgets.budget_of(task)))[0].most for task in "abc"} == {5}


async def test_a_budget_is_there_with_its_task_or_not_at_all(
    app: App, spends: Any, conn: psycopg.Connection[Any]
) -> None:
    spends()
    with conn.transaction(force_rollback=True):
        app.submit("spends", task_id="t", budget=Budget(max_tokens=5), conn=conn)
    assert conn.execute("SELECT count(*) FROM agentos.budgets").fetchone() == (0,)


async def test_a_spawned_childs_calls_count_against_its_parents_budget(
    app: App, database_dsn: str, spends: Any, adb: AsyncDatabase, conn: psycopg.Connection[Any]
) -> None:
    spends()

    @app.task("parent", budget=Budget(max_calls=2))
    async def parent(ctx: TaskContext) -> list[Any]:
        return await ctx.gather(await ctx.spawn("spends", {"calls": 3}))

    handle = app.submit("parent", task_id="t")
    async with serving(app, database_dsn):
        while not conn.execute("SELECT 1 FROM agentos.waiting WHERE reason = 'budget'").fetchone():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert len(await adb.run(budgets.raise_budget("t", Limits(calls=1)))) == 1
        assert await outcome(handle) == [3]


def test_prices_that_are_not_exact_are_refused_by_the_app() -> None:
    with pytest.raises(ConfigInvalid, match="exact"):
        App(prices={"m": {"input": 0.1, "output": 1}})
