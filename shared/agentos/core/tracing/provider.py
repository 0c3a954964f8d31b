"""The tracer provider of a process of ours."""

import os
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

from agentos.core.presence import package_version
from agentos.core.process import host


def new_provider(service: str, exporter: str) -> None:
    """Made as the OTEL_* variables say, and installed for the libraries in this process too.

    Its exporter runs in a thread. It is flushed by whoever ends the process, not at its exit, where a collector that
    is away would hold it for as long as it likes.
    """
    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(service_name=service, out=sys.stderr)))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  start-up
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _resource(service: str) -> Resource:
    said = {"service.version": package_version(), "host.name": host(), "process.pid": os.getpid()}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes: dict[str, Any] = said if named else {"service.name": service, **said}
    return Resource.create(attributes)
