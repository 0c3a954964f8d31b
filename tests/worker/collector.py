"""A collector of traces on loopback: what processes export by OTLP over HTTP, as it came."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Span:
    """One span. `parent` "": it is a root."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    start: int
    end: int
    failed: bool
    service: str
    attributes: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """`spans`: all that came."""

    port: int
    spans: list[Span] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """What makes a process export to it, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "50",
        }  # fmt: skip

    def all(self, name: str, **attributes: Any) -> list[Span]:
        """Those of this name with these attributes of ours."""
        wanted = {f"agentos.{key}": value for key, value in attributes.items()}
        return [each for each in self.spans if each.name == name and wanted.items() <= each.attributes.items()]

    def one(self, name: str, **attributes: Any) -> Span:
        """The only one."""
        found = self.all(name, **attributes)
        assert len(found) == 1, (name, attributes, [(each.name, each.attributes) for each in self.spans])
        return found[0]

    def take(self, body: bytes) -> None:
        """One export."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                            span.start_time_unix_nano, span.end_time_unix_nano, span.status.code == 2, service,
                            {a.key: _value(a.value) for a in span.attributes},
                        )
                    )  # fmt: skip


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if which == "array_value" else getattr(value, which)


@contextmanager
def collecting() -> Iterator[Collector]:
    """One that listens for the block."""

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(_body(self))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    collector = Collector(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    body = request.rfile.read(int(request.headers["Content-Length"]))
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
