"""Logs of the processes: structlog over stdlib logging, to stderr, without secrets.

Two halves, so that agentos as a library stays silent and as a process speaks:
`get_logger(name)` makes records for stdlib logging and configures nothing, so a program that imports agentos sees what
it asked logging for. `configure_logs` is called by our processes only; it gives the root logger one handler through
which every record passes, ours and those of libraries: JSON lines, or colours on a terminal.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import Any, TextIO, cast

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from agentos.store.redact import redact as redact  # noqa: PLC0414  one module, two doors
from agentos.store.settings import LogFormat, LogLevel

_FIELDS = "agentos_fields"
_NO_LEASE: ContextVar[Any] = ContextVar("no_lease", default=None)
_LIMIT = 16_384  # characters of one text in one line: enough for a long traceback, too few to fill a disk
_CHATTY = ("asyncio", "docker", "httpcore", "httpx", "urllib3")
# A terminal obeys control characters, and what a model wrote may hold some.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def get_logger(name: str) -> BoundLogger:
    """A structlog logger that writes to the stdlib logger `name`. Safe at import time; configures nothing."""
    return cast(
        BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=_TO_RECORD,
            wrapper_class=BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        ),
    )


def configure_logs(format: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Sends every record of this process to `stream` (default: stderr). Calling it again replaces the earlier set-up.

    `format` "auto" is "console" on a terminal and "json" elsewhere. Colours only on a terminal, and not with NO_COLOR.
    Libraries that tell every request speak from warning upwards, unless `level` is "debug".
    """
    target = stream or sys.stderr
    terminal = target.isatty()
    console = format == "console" or (format == "auto" and terminal)
    handler = _Lines(target)
    handler.setFormatter(_console(colors=terminal and not os.environ.get("NO_COLOR")) if console else _json())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Lines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.captureWarnings(capture=True)
    # For handlers of users and libraries that call structlog.get_logger(): its default would print to stdout.
    structlog.configure(
        processors=_TO_RECORD,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )


def bind_item(
    *, task_id: str, item_id: int | str, attempt: int, worker_id: int | str, **more: str
) -> AbstractContextManager[Mapping[str, Any]]:
    """Inside `with bind_item(...)`, every log line of this thread or asyncio task names the item it is about."""
    return cast(
        AbstractContextManager[Mapping[str, Any]],
        structlog.contextvars.bound_contextvars(
            task_id=task_id, item_id=item_id, attempt=attempt, worker_id=worker_id, **more
        ),
    )


class _Lines(logging.StreamHandler[TextIO]):
    """Our handler. A line that cannot be written is named, never shown: stdlib would print it unredacted."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[0]
        with suppress(OSError, ValueError, AttributeError):
            print(f"agentos: a log line of {record.name} was lost: {error and error.__name__}", file=sys.__stderr__)


def _json() -> ProcessorFormatter:
    traceback = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=30))
    return _formatter(
        structlog.processors.TimeStamper(fmt="iso", utc=True), traceback, _redacted, structlog.processors.JSONRenderer()
    )


def _console(*, colors: bool) -> ProcessorFormatter:
    return _formatter(
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.format_exc_info,
        _redacted,
        _printable,
        ConsoleRenderer(colors=colors, exception_formatter=plain_traceback),
    )


def _formatter(*processors: Processor) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            _about_lease,
            _traced,
            ExtraAdder(),
            _from_record,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
        ],
        processors=[ProcessorFormatter.remove_processors_meta, *processors],
    )


def _to_record(_: WrappedLogger, __: str, event: EventDict) -> dict[str, Any]:
    """All fields travel in one attribute: as attributes of their own, `name=` or `module=` would raise KeyError."""
    kept = {key: event.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in event}
    text = str(event.pop("event", ""))
    with suppress(TypeError, ValueError):  # a wrong %-format shows as it is; a log call never raises
        text = text % event["positional_args"] if "positional_args" in event else text
        event.pop("positional_args", None)
    return {"msg": text, "extra": {_FIELDS: event}, **kept}


def _about_lease(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Which item's handler said it: looked up here, so that no attempt pays for binding what it may never log."""
    module: Any = sys.modules.get("agentos.core.lease")
    lease = getattr(module, "current_lease", _NO_LEASE).get()
    if lease is not None:
        fence = lease.fence
        about = {
            "task_id": lease.task_id,
            "item_id": fence.item_id,
            "attempt": lease.attempt,
            "worker_id": fence.worker_id,
        }
        about |= {"queue": lease.queue, "kind": lease.kind} if lease.kind else {}
        for name, value in about.items():
            event.setdefault(name, value)
    return event


def _traced(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """In which span it was said, where somebody traces: by the names that OpenTelemetry gives them."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(trace, "get_current_span"):
        return event
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", f"{span.trace_id:032x}")
        event.setdefault("span_id", f"{span.span_id:016x}")
    return event


def _from_record(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    fields = event.pop(_FIELDS, {})
    for left_by_another_handler in ("message", "asctime"):
        event.pop(left_by_another_handler, None)
    event.update(fields)
    return event


def _redacted(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return cast(EventDict, redact(event, limit=_LIMIT))


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: value.translate(_ESCAPED) if isinstance(value, str) else value for key, value in event.items()}


_TO_RECORD: list[Processor] = [
    structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _about_lease, _traced, _to_record
]  # fmt: skip
