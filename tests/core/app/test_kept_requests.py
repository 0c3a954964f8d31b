"""What models were asked is kept, each message once, in the commit that begins the call."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.store.calls.blobs import collect_blobs, task_bytes
from agentos.testing import CRASH_TIMES, Pool, crash_at

TURNS = 100
MESSAGE = "All work and no play makes Jack a dull boy. " * 180  # 8 kB: 100 of them are a conversation of 800 kB


@pytest.fixture
def app(agentos_pool: Pool) -> App:
    return App(dsn=agentos_pool.dsn)


def message(number: int) -> dict[str, str]:
    return {"role": "user" if number % 2 else "assistant", "content": f"{number}: {MESSAGE}"}


def test_a_hundred_turns_of_a_conversation_store_each_message_once(app: App, agentos_pool: Pool) -> None:
    @app.task("talk")
    async def talk(ctx: TaskContext) -> int:
        messages: list[dict[str, str]] = []
        for turn in range(TURNS):
            messages.append(message(turn))
            await ctx.llm("turn", prompt=messages, model="m", generate=lambda _: "ok")
        return len(messages)

    handle = app.submit("talk", {})
    agentos_pool.drain(app)
    assert handle.result(0) == TURNS
    calls = handle.model_calls()
    assert [len(call.request) for call in calls] == list(range(1, TURNS + 1))
    assert calls[-1].request == [message(turn) for turn in range(TURNS)]
    assert {call.output for call in calls} == {"ok"}
    kept = {each.what: each.bytes for each in agentos_pool.database.run(task_bytes(handle.task_id))}
    conversation = TURNS * len(MESSAGE)
    assert (
        conversation < kept["parts"] + kept["model requests"] < 1.6 * conversation
    )  # whole requests would be 50 times it


@pytest.mark.parametrize(
    "prompt",
    ["say", "say " * 5000, {"$parts": {"$blob": "x"}}, [{"$blob": "y" * 600}, "z" * 600], {"a": ["b" * 3000] * 70}],
)
def test_a_request_of_any_shape_comes_back_as_it_was(app: App, agentos_pool: Pool, prompt: Any) -> None:
    @app.task("ask")
    async def ask(ctx: TaskContext) -> None:
        await ctx.llm("plan", prompt=prompt, model="m", parameters={"temperature": 0}, generate=lambda _: "ok")

    handle = app.submit("ask", {})
    agentos_pool.drain(app)
    (call,) = handle.model_calls()
    assert call.request == {"prompt": prompt, "tools": [], "parameters": {"temperature": 0}}


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_whoever_dies_a_call_has_its_whole_request_and_no_part_is_left_over(
    app: App, agentos_pool: Pool, when: str
) -> None:
    @app.task("ask")
    async def ask(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt=[message(1), message(2)], model="m", generate=lambda _: "ok")

    handle = app.submit("ask", {})
    with crash_at(f"{when}:cache_begin"):
        assert agentos_pool.drain(app).killed
    for call in handle.model_calls():  # none before the commit
        assert call.request == [message(1), message(2)]
    agentos_pool.drain(app)
    (call,) = handle.model_calls()
    assert (call.request, call.output) == ([message(1), message(2)], "ok")
    assert agentos_pool.database.run(collect_blobs(0)) == 0
    handle.purge()
    assert handle.model_calls() == ()
    agentos_pool.database.run(collect_blobs(0))
    assert agentos_pool.rows("SELECT 1 FROM agentos.blobs") == []


@pytest.mark.parametrize("blocking", [False, True])
def test_killed_in_the_middle_of_a_stream_nothing_of_it_is_kept_and_it_is_asked_anew(
    app: App, agentos_pool: Pool, tmp_path: Path, blocking: bool
) -> None:
    died = tmp_path / "died"

    def chunks(_: Any) -> Iterator[str]:
        yield "half"
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield " whole"

    if blocking:

        @app.task("stream")
        def stream(ctx: BlockingContext) -> list[str]:
            return list(ctx.llm_stream("plan", prompt="p", model="m", generate=chunks))
    else:

        @app.task("stream")
        async def astream(ctx: TaskContext) -> list[str]:
            return [text async for text in ctx.llm_stream("plan", prompt="p", model="m", generate=chunks)]

    handle = app.submit("stream", {})
    with crash_at("before:cache_finish"):  # in a child process, which does not come that far
        assert agentos_pool.drain(app).killed
    assert [call.output for call in handle.model_calls()] == [None]
    agentos_pool.drain(app)
    assert handle.result(0) == ["half", " whole"]
    assert [call.output for call in asyncio.run(handle.amodel_calls())] == ["half whole"]


def test_a_shared_request_stays_for_the_task_that_used_it_when_the_first_is_purged(
    app: App, agentos_pool: Pool
) -> None:
    @app.task("ask")
    async def ask(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt=[message(1)], model="m", scope="shared", generate=lambda _: "ok")

    first, second = app.submit("ask", {}), app.submit("ask", {})
    agentos_pool.drain(app)
    for handle in (first, second):
        assert [call.request for call in handle.model_calls()][-1] == [message(1)]
    generated = next(h for h in (first, second) if len(h.model_calls()) == 2)  # its own record and the shared one
    generated.purge()
    agentos_pool.database.run(collect_blobs(0))
    other = second if generated is first else first
    assert [call.request for call in other.model_calls()] == [[message(1)]]


def test_the_settings_can_leave_requests_out(app: App, agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_LLM_KEEP_REQUESTS", "false")

    @app.task("ask")
    async def ask(ctx: TaskContext) -> Any:
        return await ctx.llm("plan", prompt="a secret", model="m", generate=lambda _: "ok")

    handle = app.submit("ask", {})
    agentos_pool.drain(app)
    (call,) = handle.model_calls()
    assert (call.request, call.output) == (None, "ok")
