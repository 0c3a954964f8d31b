"""What an isolated handler asks of its context, answered in the worker by the attempt's own `TaskContext`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from agentos.core.app.context import TaskContext
from agentos.core.app.context.task_log import checked
from agentos.core.evidence import Evidence, EvidencePack
from agentos.core.flows import children, waits
from agentos.core.flows.children import Child
from agentos.core.flows.tools import ToolCall
from agentos.core.llm import Completion
from agentos.store.errors import AgentOSError, InvalidInput
from agentos.worker.isolated.wire import Channel, Message, error_as_json, error_from_json

TOLD = ("log", "progress", "tokens")


class Calls:
    """Answers questions until the handler ends. `left`: what ends the attempt, whatever the handler makes of it."""

    def __init__(self, context: TaskContext, channel: Channel) -> None:
        self._context = context
        self._channel = channel
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._called: dict[int, asyncio.Future[Any]] = {}
        self.left: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def take(self, message: Message) -> None:
        """One message of the handler's process."""
        match message:
            case {"ask": int(number), "method": str(method), "alone": bool(alone), "how": dict(how)}:
                function = self._function(number) if message.get("function") else None
                task = asyncio.create_task(self._answer(number, method, alone, how, function))
                self._answering[number] = task
                task.add_done_callback(lambda _: self._answering.pop(number, None))
            case {"tell": str(event), "data": dict(data)} if event in TOLD and self._context._telling is not None:
                fence = self._context._scope.lease.fence
                with suppress(AgentOSError):  # the handler's process has checked it
                    self._context._telling.add(fence, self._context.attempt, event, checked(data, event))
            case {"forget": int(number)}:
                if task_asked := self._answering.get(number):
                    task_asked.cancel()
            case {"returned": int(number), **said}:
                if (called := self._called.get(number)) is not None and not called.done():
                    _settle(called, said)
            case _:
                pass

    async def end(self) -> None:
        """What is still being answered is cancelled, as the calls of a handler in the worker are."""
        answering = list(self._answering.values())
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(
        self, number: int, method: str, alone: bool, how: Message, function: Callable[[Message], Any] | None
    ) -> None:
        try:
            value = await self._value(number, method, alone, how, function)
            self._channel.send({"answer": number, "value": value}, f"result of ctx.{method}")
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._channel.send({"answer": number, "error": error_as_json(exc)})
        except BaseException as exc:  # parked, or handed back: the attempt ends with it
            if not self.left.done():
                self.left.set_result(exc)
            self._channel.send({"answer": number, "left": True})

    async def _value(self, number: int, method: str, alone: bool, how: Message, function: Any) -> Any:
        context = self._context
        match method:
            case "tool":
                name, arguments = how.pop("name"), how.pop("arguments")
                execute = None if function is None else _executing(function)
                return await context._tool(alone, name, arguments, execute=execute, **how)
            case "llm":
                return await context.llm(**how, generate=None if function is None else _generating(function))
            case "llm_stream":
                async for text in context.llm_stream(**how):
                    self._channel.send({"chunk": number, "text": text})
                return None
            case "checkpoint":
                committed = await context.checkpoint(how["checkpoint_type"], how["snapshot"], _evidence(how))
                return {**asdict(committed), "created_at": committed.created_at.isoformat()}
            case "expand" | "results" | "record" | "record_llm":
                return await getattr(context, method)(**how)
            case "artifact":
                return (await context.artifact(**how)).as_json()
            case "fetch_artifact":
                return str(await context.fetch_artifact(**how))
            case "spawn":
                return asdict(await context.spawn(**how))
            case _:
                return await self._waited(method, alone, how)

    async def _waited(self, method: str, alone: bool, how: Message) -> Any:
        scope, wait = self._context._scope, self._context._wait_as
        match method:
            case "sleep":
                return await wait(waits.sleep(scope, how["seconds"], None), alone)
            case "sleep_until":
                return await wait(waits.sleep(scope, None, datetime.fromisoformat(how["until"])), alone)
            case "wait_for":
                return await wait(waits.wait_for(scope, how["signal"], how["timeout_s"]), alone)
            case "approval":
                asked = waits.approval(scope, how["question"], how["shown"], how["options"], how["timeout_s"])
                answer = await wait(asked, alone)
                return {**asdict(answer), "at": answer.at.isoformat()}
            case "gather":
                spawned = [Child(**each) for each in how["spawned"]]
                keep, on_failure = how["return_exceptions"], how["on_failure"]
                gathered = children.gather(scope, spawned, return_exceptions=keep, on_failure=on_failure)
                return [
                    {"error": error_as_json(each)} if isinstance(each, BaseException) else {"value": each}
                    for each in await wait(gathered, alone)
                ]
        raise InvalidInput(f"a task context has no {method!r}", hint="use the agentos of the worker")

    def _function(self, number: int) -> Callable[[Message], Awaitable[Any]]:
        async def call(said: Message) -> Any:
            called = self._called[number] = asyncio.get_running_loop().create_future()
            try:
                self._channel.send({"call": number, "said": said})
                return await called
            finally:
                self._called.pop(number, None)

        return call


def _executing(function: Any) -> Callable[[ToolCall, Any], Any]:
    async def execute(call: ToolCall, arguments: Any) -> Any:
        return await function({"call": asdict(call), "arguments": arguments})

    return execute


def _generating(function: Any) -> Callable[..., Any]:
    async def generate(prompt: Any, **more: Any) -> Any:
        return await function({"prompt": prompt, "more": more})

    return generate


def _evidence(how: Message) -> Any:
    evidence = [Evidence.from_json(each) for each in how["evidence"]]
    return evidence if how["pack"] is None else EvidencePack(evidence, **how["pack"])


def _settle(called: "asyncio.Future[Any]", said: Message) -> None:
    if "error" in said:
        called.set_exception(error_from_json(said["error"]))
    elif "completion" in said:
        made = dict(said["completion"])
        cost = None if made["cost"] is None else Decimal(made["cost"])
        called.set_result(Completion(**{**made, "tool_calls": tuple(made["tool_calls"]), "cost": cost}))
    else:
        called.set_result(said["value"])
