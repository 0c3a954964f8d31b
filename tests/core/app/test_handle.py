"""What is asked of a task from Python: blocking, and awaited under the same name with an `a` before it."""

import asyncio
import inspect
from typing import Any

import pytest

from agentos.core.app import App, Budget, NonRetryable, TaskContext
from agentos.core.app.handle import TaskHandle
from agentos.store.errors import NotRetryable, TaskCancelled
from agentos.testing import Pool

app = App()


@app.task("asks", budget=Budget(max_calls=1))
async def asks(ctx: TaskContext) -> str:
    answer = await ctx.approval("publish?", options=["now", "later"])
    for word in ("one", "two"):
        await ctx.llm("plan", prompt=word, model="m", generate=lambda prompt: prompt)
    if ctx.attempt < 4:
        raise NonRetryable("not yet")
    return f"{answer.option} by {answer.by}"


def test_each_question_to_a_task_is_there_twice_with_the_same_parameters() -> None:
    """`db` and `follow` aside, nothing blocks that cannot be awaited."""
    methods = methods_of(TaskHandle)
    blocking = {name for name in methods if f"a{name}" in methods}
    assert methods.keys() == blocking | {f"a{name}" for name in blocking}
    assert {"status", "result", "cancel", "retry", "answer", "questions", "raise_budget"} <= blocking
    for name in blocking:
        assert inspect.signature(methods[name]).parameters == inspect.signature(methods[f"a{name}"]).parameters, name


def test_what_an_app_is_asked_of_all_its_tasks_is_there_twice_with_the_same_parameters() -> None:
    methods = methods_of(App)
    for name in ("dead", "doubts", "signal", "usage"):
        assert inspect.signature(methods[name]).parameters == inspect.signature(methods[f"a{name}"]).parameters, name


def methods_of(kind: type) -> dict[str, Any]:
    return {name: each for name, each in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
async def test_a_task_is_answered_paid_for_and_tried_again(agentos_pool: Pool, awaited: bool) -> None:
    handle = app.submit("asks")

    async def ask(name: str, *args: object, **more: object) -> object:
        if awaited:
            return await getattr(handle, f"a{name}")(*args, **more)
        return await asyncio.to_thread(getattr(handle, name), *args, **more)

    await agentos_pool.adrain(app)
    assert [each.question for each in await ask("questions")] == ["publish?"]  # type: ignore[attr-defined]
    await ask("answer", by="ann", option="later")
    await agentos_pool.adrain(app)
    assert await ask("status") == "waiting"
    assert [(line.most, line.spent) for line in await ask("budget")] == [(1, 1)]  # type: ignore[attr-defined]
    assert await ask("raise_budget", Budget(max_calls=1)) == 1
    await agentos_pool.adrain(app)
    assert await ask("status") == "failed"
    (dead,) = await app.adead() if awaited else await asyncio.to_thread(app.dead)
    assert (dead.task_id, dead.kind, dead.items, dead.in_doubt, dead.questions) == (handle.task_id, "asks", 1, 0, 0)
    assert "not yet" in str(dead.reason)
    (used,) = await app.ausage("task") if awaited else await asyncio.to_thread(app.usage, "task")
    assert (used.task_id, used.calls, used.saved_calls, used.model) == (handle.task_id, 2, 1, None)
    assert not await app.ausage(model="another")
    assert await ask("retry") == 1
    with pytest.raises(NotRetryable):
        await ask("retry")
    await agentos_pool.adrain(app)
    assert await ask("result", 0) == "later by ann"
    assert await ask("cancel") == "completed"


async def test_why_it_was_cancelled_is_kept(agentos_pool: Pool) -> None:
    first, second = await asyncio.to_thread(app.submit, "asks"), await asyncio.to_thread(app.submit, "asks")
    assert await asyncio.to_thread(first.cancel, reason="no tea") == "cancelled"
    assert await second.acancel(reason="no milk") == "cancelled"
    for handle, reason in ((first, "no tea"), (second, "no milk")):
        with pytest.raises(TaskCancelled, match=reason):
            await handle.aresult(0)
