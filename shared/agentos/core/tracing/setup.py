"""Whether this process traces, and to where: as OpenTelemetry's own variables say, or as the user's program set it up.

`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_TRACES_EXPORTER` (`otlp`, `console`,
`none`) turn it on in processes of ours; `OTEL_SDK_DISABLED=true` turns it off. In a program of the user's nothing is
set up: there counts the provider that he installed.
"""

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from agentos.core.logs import get_logger

if TYPE_CHECKING:
    from agentos.core.tracing.tracer import Tracing

log = get_logger(__name__)

FLUSH_S = 2.0
"""What a process that ends gives its collector to take the last spans."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_found: "list[Tracing]" = []


def find() -> "Tracing | None":
    """The tracer of this process; None: it does not trace."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(trace, "get_tracer_provider"):  # it may just be being imported
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    if not _found or _found[-1].provider is not provider:
        from agentos.core.tracing.tracer import Tracing  # noqa: PLC0415  only where OpenTelemetry is there already

        _found[:] = [Tracing(provider)]
    return _found[-1]


def install(service: str) -> None:
    """Set the tracer of a process of ours up, if the environment asks for one and the user's program has none."""
    exporter = _exporter_asked_for()
    if exporter is None or find() is not None:
        return
    try:
        from agentos.core.tracing.provider import new_provider  # noqa: PLC0415  start-up: 100 ms and 14 MiB
    except ImportError as error:
        log.warning(
            "traces are asked for, and OpenTelemetry is not installed: nothing is traced", error=str(error),
            fix="pip install 'agentos-pool[otel]', or unset the OTEL_* variables",
        )  # fmt: skip
        return
    new_provider(service, exporter)


def _exporter_asked_for() -> str | None:
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or named == "none":
        return None
    if named in ("otlp", "console"):
        return named
    if named:
        log.warning("OTEL_TRACES_EXPORTER is none that agentos knows", value=named, fix="use otlp, console or none")
        return None
    return "otlp" if any(os.environ.get(name) for name in _ENDPOINTS) else None


def flush(timeout_s: float = FLUSH_S) -> None:
    """Send what has ended. A collector that does not answer keeps nobody longer than that."""
    tracing = find()
    if tracing is None:
        return
    sending = threading.Thread(target=tracing.flush, args=(timeout_s,), name="agentos-traces", daemon=True)
    sending.start()
    sending.join(timeout_s)
    if sending.is_alive():
        log.warning("the last spans are lost: the collector does not answer", timeout_s=timeout_s)
