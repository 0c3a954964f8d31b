"""Asking models: paid for once, whole or in chunks."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound, GenerateFunction
from agentos.core.flows.asking import ask_model, turn_for
from agentos.core.flows.model import Turn
from agentos.core.llm.request import ModelRequest
from agentos.core.llm.stream import OnToken, Whole, live
from agentos.core.tracing.step import Step, step, stream_step
from agentos.store.canonical import canonical_text
from agentos.store.errors import LLMUnavailable


class Models(Bound):
    """`ctx.llm`, `ctx.llm_stream`."""

    async def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        tools: Sequence[Mapping[str, Any]] = (), parameters: Mapping[str, Any] | None = None, scope: str = "task",
        sample: int | None = None, on_token: OnToken | None = None, allow_truncated: bool = False,
    ) -> Any:  # fmt: skip
        """A model's output, paid for once: the same operation, request and model are answered by the record.

        `prompt`: a text, or a list of messages. `tools`, `parameters` (temperature, max_tokens ...) count as much as
        the prompt. `generate(prompt)`, with `tools=` and `parameters=` if it takes them: sync or async, returns any
        JSON value, a `Completion` (its tokens are counted), or an iterator of chunks, of which the whole is stored and
        each is told to `on_token`; default: the endpoint of AGENTOS_LLM_*, else the stand-in.
        `scope`: who shares the output: `task`, `tenant:NAME`, `shared`, `off`. `sample`: asks for a second, third ...
        output on purpose. `allow_truncated`: return an output that was cut off; it is never cached.
        Raises OutputTruncated. BudgetExceeded: if the task's budget refuses the call, before it is made.
        """
        request = ModelRequest(operation_type, prompt, model or self._model, tools, parameters, scope, sample)
        make = _asking(request, generate or self._complete)
        flow = ask_model(self._scope, request, make, on_token=on_token, allow_truncated=allow_truncated)
        await self._park_if_paused()
        with step(f"chat {request.model}", **_told(request)):
            return await self._run(flow)

    async def llm_stream(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        tools: Sequence[Mapping[str, Any]] = (), parameters: Mapping[str, Any] | None = None, scope: str = "task",
        sample: int | None = None, allow_truncated: bool = False,
    ) -> AsyncIterator[str]:  # fmt: skip
        """`async for text in ctx.llm_stream(...)`: the chunks while they come; of a recorded output the whole at once.

        It is recorded when the last chunk has come. Who stops before, or dies, leaves no record, and the next who asks
        begins anew. The rest as in `llm`.
        """
        request = ModelRequest(operation_type, prompt, model or self._model, tools, parameters, scope, sample)
        turn = turn_for(self._scope, request, allow_truncated=allow_truncated)
        start = self._scope.guarded(_asking(request, generate or self._complete))
        await self._park_if_paused()
        with stream_step(f"chat {request.model}", **_told(request)) as this:
            async for text in self._streamed(turn, start, this):
                yield text

    async def _streamed(self, turn: Turn, start: Callable[[], Any], this: Step) -> AsyncIterator[str]:
        with this.inside():
            await self._run(self._scope.may_begin())
            found = await self._run(turn.begin())
        if found is not None:
            yield found.output if isinstance(found.output, str) else canonical_text(found.output)
            return
        whole = Whole()
        self._streams += 1
        try:
            async for chunk in live(await start() if asyncio.iscoroutinefunction(start) else start()):
                if text := whole.add(chunk):
                    yield text
            with this.inside():
                kept = await self._run(turn.keep(whole.made()))
        except BaseException as exc:
            ended = asyncio.CancelledError() if isinstance(exc, GeneratorExit) else exc
            await asyncio.shield(self._run(turn.give_up(ended)))
            raise
        finally:
            self._streams -= 1
        if kept is None:
            raise LLMUnavailable("another process made this output meanwhile", hint="ask again: its output is recorded")


class BlockingModels(BlockingBound[Models]):
    """The same, blocking."""

    def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        tools: Sequence[Mapping[str, Any]] = (), parameters: Mapping[str, Any] | None = None, scope: str = "task",
        sample: int | None = None, on_token: OnToken | None = None, allow_truncated: bool = False,
    ) -> Any:  # fmt: skip
        """As `TaskContext.llm`."""
        return self._wait(
            self._context.llm(
                operation_type, prompt=prompt, model=model, generate=generate, tools=tools, parameters=parameters,
                scope=scope, sample=sample, on_token=on_token, allow_truncated=allow_truncated,
            )
        )  # fmt: skip

    def llm_stream(self, operation_type: str, *, prompt: Any, **more: Any) -> Iterator[str]:
        """`for text in ctx.llm_stream(...)`. As `TaskContext.llm_stream`, with the same arguments."""
        chunks: SimpleQueue[str | None] = SimpleQueue()
        asked = self._start(self._hand_on(chunks, operation_type, prompt, more))
        asked.add_done_callback(lambda _: chunks.put(None))
        try:
            while (text := chunks.get()) is not None:
                yield text
        finally:
            if not asked.done():
                asked.cancel()
        self._finish(asked)

    async def _hand_on(self, chunks: "SimpleQueue[str | None]", operation: str, prompt: Any, more: Any) -> None:
        """One asyncio task from the first chunk to the last: clients of endpoints ask for that."""
        async for text in self._context.llm_stream(operation, prompt=prompt, **more):
            chunks.put(text)


def _told(request: ModelRequest) -> dict[str, str]:
    """What a span says of it, by OpenTelemetry's conventions for model calls."""
    return {
        "gen_ai__operation__name": "chat", "gen_ai__request__model": request.model,
        "operation_type": request.operation_type,
    }  # fmt: skip


def _asking(request: ModelRequest, generate: GenerateFunction) -> Callable[[], Any]:
    """`generate(prompt)`, with the tools and parameters if it takes them; one that does not has them from elsewhere."""
    if request.is_plain:
        return functools.partial(generate, request.prompt)
    given: dict[str, Any] = {"tools": list(request.tools), "parameters": dict(request.parameters or {})}
    taken = inspect.signature(generate).parameters.values()
    names = {each.name for each in taken}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in taken)
    return functools.partial(generate, request.prompt, **{n: v for n, v in given.items() if takes_all or n in names})
