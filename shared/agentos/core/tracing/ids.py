"""Which ids spans get: random ones, but for attempts.

The span of an attempt is exported when it ends, and one whose process dies never ends. So that the calls it made, which
were exported, have a parent all the same, its id is made of what everybody knows of it: the next attempt then tells the
span of the one that was lost. The id of a trace that nobody began is made of its task, so that all attempts share it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from hashlib import sha256

from opentelemetry.sdk.trace.id_generator import IdGenerator

_trace_id: ContextVar[int] = ContextVar("agentos_trace_id", default=0)
_span_id: ContextVar[int] = ContextVar("agentos_span_id", default=0)


class ChosenIds(IdGenerator):
    """Those of `others`, but for what is started in a block of `chosen`."""

    def __init__(self, others: IdGenerator) -> None:
        self._others = others

    def generate_span_id(self) -> int:
        """Of the next span."""
        return _span_id.get() or self._others.generate_span_id()

    def generate_trace_id(self) -> int:
        """Of the next trace."""
        return _trace_id.get() or self._others.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """A hash is as good for sampling by ratio."""
        return self._others.is_trace_id_random()


@contextmanager
def chosen(trace_id: int, span_id: int) -> Iterator[None]:
    """What is started in the block has these ids; the trace's only if it has no parent."""
    of_trace, of_span = _trace_id.set(trace_id), _span_id.set(span_id)
    try:
        yield
    finally:
        _trace_id.reset(of_trace)
        _span_id.reset(of_span)


def trace_id_of(task_id: str, created_at: datetime) -> int:
    """Of a task that was submitted without a trace."""
    return _number(f"{task_id} {created_at.timestamp():.6f}", 16)


def attempt_id_of(trace_id: int, item_id: int, attempt: int) -> int:
    """Of the span of one attempt."""
    return _number(f"{trace_id:032x} {item_id} {attempt}", 8)


def _number(text: str, size: int) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:size], "big") or 1
