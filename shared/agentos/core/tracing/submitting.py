"""What a submit adds to its call when it is traced: the tasks carry the trace along."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agentos.core.tracing.setup import find
from agentos.store.calls.traces import with_trace
from agentos.store.run import Call

Carried = Callable[[Call[Any]], Call[Any]]


def may_be_traced() -> bool:
    """Whether a submit has to ask; nobody traces in a program that has not imported what it takes."""
    return "opentelemetry.trace" in sys.modules


@contextmanager
def submitting(kind: str, queue: str, task_ids: list[str]) -> Iterator[Carried | None]:
    """A span for the block, and what makes its call carry it; None: nobody traces."""
    if not may_be_traced():
        yield None
        return
    tracing = find()
    if tracing is None:
        yield _of_caller()
        return
    with tracing.submit(kind, queue, task_ids) as headers:
        yield _carrying(headers)


def _of_caller() -> Carried | None:
    """Without a tracer of its own a program may still be inside somebody's span."""
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415  only where it is imported already
        TraceContextTextMapPropagator,
    )

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return _carrying(headers) if headers else None


def _carrying(headers: dict[str, str]) -> Carried | None:
    parent, state = headers.get("traceparent"), headers.get("tracestate")

    def carry(call: Call[Any]) -> Call[Any]:
        ids = call.args[0]
        return with_trace(call, [ids] if isinstance(ids, str) else ids, parent or "", state)

    return carry if parent else None
