"""The context of a handler in a process of its own: the same calls, each a question to the worker that holds the lease.

`alone` goes with a question: whether the handler itself asks, or a branch of it, which must not park the item.
"""

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

from agentos.core.app.context.bound import BlockingBound
from agentos.core.app.context.progress import Progress
from agentos.core.app.context.task_log import TaskLog
from agentos.core.artifacts import digest_of
from agentos.core.evidence import Evidence, EvidencePack
from agentos.core.flows.children import Child, OnFailure
from agentos.core.flows.tools import ToolCall
from agentos.core.flows.waits import NEAR_S, Answer
from agentos.core.llm import Completion
from agentos.core.parked import Parked
from agentos.store.calls.checkpoints import Committed
from agentos.store.errors import IsolationRefused
from agentos.worker.isolated.wire import Channel, Message, error_as_json, error_from_json

_alone: ContextVar[bool | None] = ContextVar("alone", default=None)
"""Said by a blocking handler, whose questions each run in a task of their own."""


class Told:
    """Where `ctx.progress` and `ctx.log` put what they tell: on the way to the worker."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop

    def add(self, _fence: Any, _attempt: int, event: str, data: Message) -> None:
        """From any thread. It does not wait."""
        self._loop.call_soon_threadsafe(self._channel.send, {"tell": event, "data": data})


class IsolatedContext(Progress):
    """As `TaskContext`, without `transaction`."""

    def __init__(self, channel: Channel, start: Message) -> None:
        self._channel = channel
        self._start = start
        self._telling: Any = Told(channel, asyncio.get_running_loop())
        self._main: asyncio.Task[Any] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._chunks_of: dict[int, asyncio.Queue[str | None]] = {}
        self._functions: dict[int, Callable[[Message], Any]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._gone = False
        self._scope: Any = _NoFence

    # -- which item it is --

    @property
    def snapshot(self) -> Any:
        """As `TaskContext.snapshot`."""
        return self._start["snapshot"]

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self._start["task_id"])

    @property
    def item_id(self) -> int:
        """The work item's id."""
        return int(self._start["item_id"])

    @property
    def key(self) -> str | None:
        """The item's key in its plan, if it has one."""
        return self._start["key"]  # type: ignore[no-any-return]

    @property
    def version(self) -> int:
        """Which version of its handler the item is pinned to."""
        return int(self._start["version"])

    @property
    def attempt(self) -> int:
        """Which claim of the item this is, from 1."""
        return int(self._start["attempt"])

    @property
    def left(self) -> bool:
        """Whether the worker has left the handler: however it ends then, it counts for nothing."""
        return self._gone

    @functools.cached_property
    def log(self) -> TaskLog:
        """As `TaskContext.log`."""
        return TaskLog(None, self.attempt, self._telling)  # type: ignore[arg-type]  # the worker knows the fence

    # -- calls --

    async def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None, execute: Callable[..., Any] | None = None,
        on_doubt: str | None = None, **refused: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """As `TaskContext.tool`. Registered tools run in the worker, `execute` here. `policy` and `probe` are refused:
        declare them with `@app.tool`.
        """
        _refuse(refused)

        def run(said: Message) -> Any:
            assert execute is not None  # noqa: S101
            return execute(ToolCall(**said["call"]), said["arguments"])

        how = {"name": name, "arguments": arguments, "key": key, "on_doubt": on_doubt}
        return await self._ask("tool", how, None if execute is None else run)  # type: ignore[no-any-return]

    async def llm(
        self, operation_type: str, *, prompt: Any, generate: Callable[..., Any] | None = None, **more: Any
    ) -> Any:
        """As `TaskContext.llm`. A `generate` runs here and returns the whole; `on_token` is refused."""
        _refuse({name: value for name, value in more.items() if name == "on_token"})
        how = {"operation_type": operation_type, "prompt": prompt, **more}
        return await self._ask("llm", how, generate and functools.partial(_generate, generate))

    async def llm_stream(
        self, operation_type: str, *, prompt: Any, generate: Callable[..., Any] | None = None, **more: Any
    ) -> AsyncIterator[str]:
        """As `TaskContext.llm_stream`, of a model that the worker asks: a `generate` is refused."""
        _refuse({"generate": generate})
        number, chunks = next(self._numbers), asyncio.Queue[str | None]()
        self._chunks_of[number] = chunks
        how = {"operation_type": operation_type, "prompt": prompt, **more}
        asked = asyncio.ensure_future(self._ask("llm_stream", how, number=number))
        asked.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (text := await chunks.get()) is not None:
                yield text
            await asked
        finally:
            del self._chunks_of[number]
            asked.cancel()

    async def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Committed:
        """As `TaskContext.checkpoint`."""
        pack: Any = None
        if isinstance(evidence, EvidencePack):
            pack = {name: getattr(evidence, name) for name in ("require_all", "allow_partial", "min_verified")}
            evidence = evidence.evidence_list
        how = {
            "checkpoint_type": checkpoint_type, "snapshot": snapshot, "pack": pack,
            "evidence": [each.as_json() for each in evidence],
        }  # fmt: skip
        said = await self._ask("checkpoint", how)
        return Committed(said["sequence_number"], datetime.fromisoformat(said["created_at"]))

    async def expand(self, items: Sequence[Mapping[str, Any]]) -> int:
        """As `TaskContext.expand`."""
        return int(await self._ask("expand", {"items": [dict(each) for each in items]}))

    async def results(self) -> dict[str, Any]:
        """As `TaskContext.results`."""
        return await self._ask("results", {})  # type: ignore[no-any-return]

    async def record(
        self, name: str, arguments: Any = None, result: Any = None, *, key: str | None = None
    ) -> dict[str, Any]:
        """As `TaskContext.record`, in a commit of its own."""
        how = {"name": name, "arguments": arguments, "result": result, "key": key}
        return await self._ask("record", how)  # type: ignore[no-any-return]

    async def record_llm(
        self, operation_type: str, *, prompt: Any, output: Any, model: str | None = None, sample: int | None = None
    ) -> Any:
        """As `TaskContext.record_llm`, in a commit of its own."""
        how = {"operation_type": operation_type, "prompt": prompt, "output": output, "model": model, "sample": sample}
        return await self._ask("record_llm", how)

    async def artifact(self, path: str | Path, name: str | None = None) -> Evidence:
        """As `TaskContext.artifact`: the worker reads the file, as the same user."""
        said = await self._ask("artifact", {"path": _absolute(path), "name": name or Path(path).name})
        return Evidence.from_json(said)

    async def fetch_artifact(self, artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Path:
        """As `TaskContext.fetch_artifact`: the worker writes the file, as the same user."""
        await self._ask("fetch_artifact", {"artifact": digest_of(artifact), "to": _absolute(to)})
        return Path(to)

    # -- waits --

    async def sleep(self, seconds: float) -> None:
        """As `TaskContext.sleep`."""
        if 0 <= seconds < NEAR_S:
            await asyncio.sleep(seconds)
        else:
            await self._ask("sleep", {"seconds": seconds})

    async def sleep_until(self, until: datetime) -> None:
        """As `TaskContext.sleep_until`."""
        await self._ask("sleep_until", {"until": until.isoformat()})

    async def wait_for(self, signal: str, *, timeout_s: float | None = None) -> Any:
        """As `TaskContext.wait_for`."""
        return await self._ask("wait_for", {"signal": signal, "timeout_s": timeout_s})

    async def approval(
        self, question: str, *, shown: Any = None, options: Sequence[str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """As `TaskContext.approval`."""
        how = {
            "question": question, "shown": shown, "options": None if options is None else list(options),
            "timeout_s": timeout_s,
        }  # fmt: skip
        said = await self._ask("approval", how)
        return Answer(said["option"], said["by"], datetime.fromisoformat(said["at"]))

    async def spawn(self, kind: str, payload: Mapping[str, Any] | None = None, **how: Any) -> Child:
        """As `TaskContext.spawn`."""
        return Child(**await self._ask("spawn", {"kind": kind, "payload": dict(payload or {}), **how}))

    async def gather(
        self, *spawned: Child, return_exceptions: bool = False, on_failure: OnFailure | None = None
    ) -> list[Any]:
        """As `TaskContext.gather`."""
        if not spawned:
            return []
        made = [asdict(each) for each in spawned]
        how = {"spawned": made, "return_exceptions": return_exceptions, "on_failure": on_failure}
        said = await self._ask("gather", how)
        return [error_from_json(each["error"]) if "error" in each else each["value"] for each in said]

    # -- what there is not --

    def transaction(self, conn: Any = None) -> NoReturn:
        """Raises IsolationRefused: this process has no connection, and the lease's row is locked in the worker."""
        del conn
        _refuse({"ctx.transaction": True})
        raise AssertionError

    # -- questions and answers --

    async def _ask(
        self, method: str, how: Message, function: Callable[[Message], Any] | None = None, number: int | None = None
    ) -> Any:
        if self._gone:
            raise Parked
        number = number or next(self._numbers)
        alone = _alone.get()
        if alone is None:
            alone = asyncio.current_task() is self._main
        message = {"ask": number, "method": method, "alone": alone, "how": how, "function": function is not None}
        self._channel.send(message, f"what ctx.{method} was given")
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        if function is not None:
            self._functions[number] = function
        try:
            return await answer
        except asyncio.CancelledError:
            self._channel.send({"forget": number})
            raise
        finally:
            self._asked.pop(number, None)
            self._functions.pop(number, None)

    def hear(self, message: Message) -> None:
        """What the worker says, in its order."""
        match message:
            case {"answer": int(number), **answered}:
                if (answer := self._asked.get(number)) is not None and not answer.done():
                    self._settle(answer, answered)
            case {"chunk": int(number), "text": str(text)}:
                if number in self._chunks_of:
                    self._chunks_of[number].put_nowait(text)
            case {"call": int(number), "said": dict(said)}:
                task = asyncio.create_task(self._called(number, said))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            case _:
                raise AssertionError(message)

    def _settle(self, answer: "asyncio.Future[Any]", said: Message) -> None:
        if "left" in said:
            self._gone = True
            answer.set_exception(_Left())
        elif "error" in said:
            answer.set_exception(error_from_json(said["error"]))
        else:
            answer.set_result(said["value"])

    async def _called(self, number: int, said: Message) -> None:
        """The worker runs, in the midst of a recorded call, the function that was given with it."""
        function = self._functions.get(number)
        if function is None:
            return
        try:
            value = await asyncio.to_thread(function, said)
            while inspect.isawaitable(value):
                value = await value
            if isinstance(value, Completion):
                cost = None if value.cost is None else str(value.cost)
                value = {"completion": {**asdict(value), "tool_calls": list(value.tool_calls), "cost": cost}}
            else:
                value = {"value": value}
            self._channel.send({"returned": number, **value}, "what the function returned")
        except BaseException as exc:  # carried to the worker, which records how the call ended
            self._channel.send({"returned": number, "error": error_as_json(exc)})


class _Left(Parked):
    """The worker has left the handler: its item is parked, or handed back after a checkpoint."""


class _NoFence:
    """The worker knows the fence."""

    class lease:
        """As a scope has it."""

        fence = None


def _absolute(path: str | Path) -> str:
    """For the worker, whose current directory may be another one."""
    return str(Path(path).absolute())


def _refuse(asked: Mapping[str, Any]) -> None:
    given = sorted(name for name, value in asked.items() if value is not None)
    if given:
        raise IsolationRefused(
            f'{", ".join(given)} cannot be had in a handler with isolation="process"',
            hint="a tool or another handler of the app, which runs in the worker, can do that part",
        )


def _generate(generate: Callable[..., Any], said: Message) -> Any:
    taken = inspect.signature(generate).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    return generate(said["prompt"], **{n: v for n, v in said["more"].items() if takes_all or n in taken})


class BlockingIsolatedContext(BlockingBound[Any]):
    """The same for plain handlers, blocking."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._context, name)
        if name == "llm_stream":
            return self._stream
        return functools.partial(self._call, found) if inspect.iscoroutinefunction(found) else found

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._wait(self._asked_by(self._is_handler(), function, args, kwargs))

    async def _asked_by(self, alone: bool, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        _alone.set(alone)
        return await function(*args, **kwargs)

    def _is_handler(self) -> bool:
        return threading.get_ident() == self._thread

    def _stream(self, operation_type: str, *, prompt: Any, **more: Any) -> Iterator[str]:
        chunks: SimpleQueue[str | None] = SimpleQueue()

        async def hand_on() -> None:
            async for text in self._context.llm_stream(operation_type, prompt=prompt, **more):
                chunks.put(text)

        asked = self._start(hand_on())
        asked.add_done_callback(lambda _: chunks.put(None))
        while (text := chunks.get()) is not None:
            yield text
        self._finish(asked)
