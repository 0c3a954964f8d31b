"""The spans: submit, attempts, and what their handlers ask of their context. Imported only where OpenTelemetry is."""

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentos.core.presence import package_version
from agentos.core.tracing.ids import ChosenIds, attempt_id_of, chosen, trace_id_of
from agentos.core.tracing.step import Step, current_step, steps_of_attempt
from agentos.store.calls.items import ClaimedItem
from agentos.store.calls.traces import Lost, Origin
from agentos.store.redact import redact

_PROPAGATOR = TraceContextTextMapPropagator()
_LONGEST_STACK = 8192


class Tracing:
    """Makes spans with the tracer of one provider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.tracer = provider.get_tracer("agentos", package_version())
        others = getattr(self.tracer, "id_generator", None)  # another SDK chooses its own ids
        if others is not None and not isinstance(others, ChosenIds):
            self.tracer.id_generator = ChosenIds(others)

    def flush(self, timeout_s: float) -> None:
        """Send what has ended."""
        if hasattr(self.provider, "force_flush"):
            self.provider.force_flush(round(timeout_s * 1000))

    def carrier(self) -> dict[str, str]:
        """The current span as headers."""
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers)
        return headers

    @contextmanager
    def submit(self, kind: str, queue: str, task_ids: list[str]) -> Iterator[dict[str, str]]:
        """The span of a submit, with what its tasks carry along."""
        attributes = {
            **_messaging("send", queue), "agentos.kind": kind, "agentos.queue": queue,
            "messaging.batch.message_count": len(task_ids),
        }  # fmt: skip
        if len(task_ids) == 1:
            attributes |= {"agentos.task_id": task_ids[0], "messaging.message.id": task_ids[0]}
        span = self.tracer.start_span(f"submit {kind}", kind=SpanKind.PRODUCER, attributes=attributes)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield self.carrier()
        except Exception as exc:
            _fail(span, exc)
            raise
        finally:
            span.end()

    def attempt(self, item: ClaimedItem, worker_id: int, origin: Origin) -> "AttemptSpan":
        """Begin the span of an attempt; and tell the one before, if its worker died and could not."""
        headers = {"traceparent": origin.traceparent or "", "tracestate": origin.tracestate or ""}
        parent = _PROPAGATOR.extract(headers, otel.Context())
        begun_by = trace.get_current_span(parent).get_span_context()
        trace_id = begun_by.trace_id if begun_by.is_valid else trace_id_of(item.task_id, origin.created_at)
        if origin.lost is not None:
            self._tell_lost(item, origin.lost, trace_id, parent)
        with chosen(trace_id, attempt_id_of(trace_id, item.item_id, item.attempt)):
            span = self._span_of(item, item.attempt, worker_id, parent)
        return AttemptSpan(self, span, parent)

    def _tell_lost(self, item: ClaimedItem, lost: Lost, trace_id: int, parent: otel.Context) -> None:
        with chosen(trace_id, attempt_id_of(trace_id, item.item_id, item.attempt - 1)):
            span = self._span_of(item, item.attempt - 1, lost.worker_id, parent, start_time=_ns(lost.claimed_at))
        span.set_attribute("agentos.outcome", "lost")
        span.set_status(Status(StatusCode.ERROR, "the lease was taken back: its worker did not beat any more"))
        span.end(_ns(lost.at))

    def _span_of(
        self, item: ClaimedItem, attempt: int, worker_id: int, parent: otel.Context, start_time: int | None = None
    ) -> Span:
        attributes = {
            **_messaging("process", item.queue), "messaging.message.id": item.task_id, "agentos.task_id": item.task_id,
            "agentos.item_id": item.item_id, "agentos.attempt": attempt, "agentos.worker_id": worker_id,
            "agentos.queue": item.queue, "agentos.kind": item.kind, "agentos.version": item.version,
        }  # fmt: skip
        return self.tracer.start_span(  # type: ignore[no-any-return]  # whose provider it is, nobody knows
            f"attempt {item.kind}", parent, SpanKind.CONSUMER, attributes, start_time=start_time
        )

    def step(self, name: str, attributes: dict[str, Any]) -> Step:
        """A call of the context."""
        return OpenStep(self, name, attributes, everywhere=True)

    def stream(self, name: str, attributes: dict[str, Any]) -> Step:
        """A call that comes and goes."""
        return OpenStep(self, name, attributes, everywhere=False)


class AttemptSpan:
    """The span of an attempt that runs."""

    def __init__(self, tracing: Tracing, span: Span, parent: otel.Context) -> None:
        self._tracing = tracing
        self._span = span
        self._context = trace.set_span_in_context(span, parent)

    def enter(self) -> None:
        """Everything the running task does from now on is below it; its context ends with the task."""
        otel.attach(self._context)
        steps_of_attempt.set(self._tracing)

    def mark(self, **attributes: Any) -> None:
        """Say more about it."""
        self._span.set_attributes(_named(attributes))

    def end(self, outcome: str, exc: BaseException | None) -> None:
        """It has ended: completed, retried, failed, cancelled, released, parked or lost."""
        self._span.set_attribute("agentos.outcome", outcome)
        if outcome in ("failed", "retried", "lost"):
            _fail(self._span, exc)
        self._span.end()


class _Inside:
    """Makes a span the current one for a block."""

    def __init__(self, span: Span, step: "OpenStep") -> None:
        self._span = span
        self._step = step

    def __enter__(self) -> None:
        self._attached = otel.attach(trace.set_span_in_context(self._span))
        self._was: Token[Step | None] = current_step.set(self._step)

    def __exit__(self, *_: object) -> None:
        current_step.reset(self._was)
        otel.detach(self._attached)


class OpenStep:
    """One call. `everywhere`: its span is the current one for the whole block, not only in `inside`."""

    def __init__(self, tracing: Tracing, name: str, attributes: dict[str, Any], *, everywhere: bool) -> None:
        self._began = time.time_ns()
        self._span: Span = tracing.tracer.start_span(name, attributes=_named(attributes), start_time=self._began)
        self._everywhere = _Inside(self._span, self) if everywhere else None
        self._replayed = False

    def __enter__(self) -> Self:
        if self._everywhere is not None:
            self._everywhere.__enter__()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._everywhere is not None:
            self._everywhere.__exit__()
        if isinstance(exc, Exception):
            _fail(self._span, exc)
        elif exc is not None:  # parked, handed back, cancelled: no error of the call's
            self._span.set_attribute("agentos.left", type(exc).__name__)
        self._span.end(self._began if self._replayed else None)

    def inside(self) -> Any:
        """A block of it."""
        return _Inside(self._span, self)

    def mark(self, **attributes: Any) -> None:
        """Say more about it."""
        self._replayed = bool(attributes.get("replayed", self._replayed))
        self._span.set_attributes(_named(attributes))


def join(headers: Mapping[str, str]) -> None:
    """What this task does from now on is below the span that another process sent."""
    otel.attach(_PROPAGATOR.extract(headers))


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`replayed` is `agentos.replayed`, `gen_ai__tool__name` is `gen_ai.tool.name`; what is None is left out."""
    return {
        name.replace("__", ".") if "__" in name else f"agentos.{name}": value
        for name, value in attributes.items()
        if value is not None
    }


def _messaging(operation: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "agentos", "messaging.operation.type": operation, "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }  # fmt: skip


def _fail(span: Span, exc: BaseException | None) -> None:
    if exc is None:
        span.set_status(Status(StatusCode.ERROR))
        return
    name, text = type(exc).__qualname__, redact(_text_of(exc))
    stack = redact("".join(traceback.format_exception(exc))[-_LONGEST_STACK:])
    # As record_exception would, which tells secrets.
    told = {"exception.type": name, "exception.message": text, "exception.stacktrace": stack}
    span.add_event("exception", told)
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, text[:500]))


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # its __str__ is the user's code
        return f"its text cannot be had: {type(broken).__name__}"


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1e9)
