"""A span for each request. To be imported only if the process is traced.

Names are those of OpenTelemetry's conventions for HTTP (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
"""

import falcon
from opentelemetry.trace import SpanKind, StatusCode

from api_service.middleware import METHODS
from libaggregator.spans import Spans, context_of

_FIRST_FAULT = 500
"""The lowest status that is no fault of the client."""


class RequestSpans:
    """Makes a span of each request, in the trace that the client is in; it tells the route, never the path itself."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin the span."""
        method = req.method if req.method in METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.scheme": req.scheme}
        req.context.tracing = self._spans.span(method, SpanKind.SERVER, attributes, context_of(req.headers_lower))
        req.context.span = req.context.tracing.__enter__()

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        """End the span."""
        span, status = req.context.span, resp.status_code
        if req.uri_template:
            span.set_attribute("http.route", req.uri_template)
            span.update_name(f"{req.method if req.method in METHODS else '_OTHER'} {req.uri_template}")
        span.set_attribute("http.response.status_code", status)
        if status >= _FIRST_FAULT:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        req.context.tracing.__exit__(None, None, None)
