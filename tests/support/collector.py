"""Where spans arrive: in memory, or as processes send them (OTLP over HTTP)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libaggregator.spans import Spans

PRODUCER_TRACE, PRODUCER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{PRODUCER_TRACE}-{PRODUCER_SPAN}-01"
"""What a producer or a client sends along, https://www.w3.org/TR/trace-context/."""


class SpansInMemory:
    """Spans of this process, kept as they end."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)

    @property
    def finished(self) -> Sequence[ReadableSpan]:
        """All that have ended, in the order of their ends."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those whose names begin like this."""
        return [span for span in self.finished if span.name.startswith(name)]


def ids_of(span: ReadableSpan) -> tuple[str, str]:
    """Return the ids of trace and span, as headers and logs have them."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    """Return the id of the parent."""
    return f"{span.parent.span_id:016x}" if span.parent else None


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    raw: str = field(repr=False)


class Collector:
    """Takes spans at `endpoint`; while it is not `well`, it answers 503."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        self.well = True
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append(dict(self.headers.items()))
                if collector.well:
                    collector.spans += _spans_in(ExportTraceServiceRequest.FromString(body))
                self.send_response(200 if collector.well else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def named(self, name: str) -> list[ReceivedSpan]:
        """Those whose names begin like this."""
        return [span for span in self.spans if span.name.startswith(name)]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def _spans_in(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    found = []
    for of_resource in request.resource_spans:
        service = _attributes(of_resource.resource)["service.name"]
        for of_scope in of_resource.scope_spans:
            found += [
                ReceivedSpan(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span),
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    str(span) + str(of_resource.resource),
                )
                for span in of_scope.spans
            ]
    return found


def _attributes(message: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in message.attributes}
