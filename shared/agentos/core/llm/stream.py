"""Outputs that come in chunks: gathered to the whole that is stored, and handed on while they come."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from agentos.core.llm.completion import Completion
from agentos.store.errors import InvalidValue

OnToken = Callable[[str], Any]

_END: Any = object()


class Whole:
    """Gathers chunks. Each is a text; a `Completion` at the end says what it cost and how it ended, and its text counts
    if no other came.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._end: Completion | None = None

    def add(self, chunk: Any) -> str:
        """Take a chunk; the text that is new. Raises InvalidValue: if it is neither a text nor a `Completion`."""
        if isinstance(chunk, Completion):
            self._end = chunk
            chunk = "" if self._texts else chunk.text
        if not isinstance(chunk, str):
            raise InvalidValue(
                f"a model's chunk is of type {type(chunk).__name__}", hint="yield texts, and a Completion at the end"
            )
        self._texts.append(chunk)
        return chunk

    def made(self) -> str | Completion:
        """The whole output."""
        text = "".join(self._texts)
        return replace(self._end, text=text) if self._end else text


def gathering(generate: Callable[[], Any], on_token: OnToken | None = None) -> Callable[[], Any]:
    """`generate`, whose chunks, if it makes any, are gathered and told to `on_token` one by one; async if it is."""
    if inspect.iscoroutinefunction(generate):

        async def run() -> Any:
            return await _gathered(await generate(), on_token)

        return run

    def run_blocking() -> Any:
        made = generate()
        if isinstance(made, AsyncIterator) or inspect.isawaitable(made):
            return _gathered(made, on_token)
        return _gather(made, on_token) if isinstance(made, Iterator) else made

    return run_blocking


async def live(made: Any) -> AsyncGenerator[Any, None]:
    """The chunks of what a generator returned, as they come; of a whole output the one chunk that it is."""
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AsyncIterator):
        try:
            async for chunk in made:
                yield chunk
        finally:
            if isinstance(made, AsyncGenerator):
                await made.aclose()
    elif isinstance(made, Iterator):
        while (chunk := await asyncio.to_thread(next, made, _END)) is not _END:
            yield chunk
    else:
        yield made


async def _gathered(made: Any, on_token: OnToken | None) -> Any:
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, AsyncIterator | Iterator):
        return made
    whole = Whole()
    async with aclosing(live(made)) as chunks:
        async for chunk in chunks:
            told = _tell(whole, chunk, on_token)
            if inspect.isawaitable(told):
                await told
    return whole.made()


def _gather(made: Iterator[Any], on_token: OnToken | None) -> Any:
    whole = Whole()
    for chunk in made:
        _tell(whole, chunk, on_token)
    return whole.made()


def _tell(whole: Whole, chunk: Any, on_token: OnToken | None) -> Any:
    text = whole.add(chunk)
    return on_token(text) if text and on_token else None
