"""What happens to every request, whatever it asks: its id, its line in the log, its metrics, its path."""

import re
import time
import uuid

import falcon
import structlog

from api_service.metrics import ApiMetrics
from api_service.routing import Target

UNKNOWN_ROUTE = "(unknown path)"

log = structlog.get_logger(__name__)
_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
# waitress makes one slash of those at the beginning, `%2F` included, before anybody sees the path
_COLLAPSED = re.compile(r"(?:[^:/?#]+://[^/?#]*)?(?:/|%2F){2}", re.IGNORECASE)


class RequestIds:
    """Takes over the id of a request, or makes one; it is in the answer and in every line of the log."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Bind the id to the log of this thread."""
        given = req.get_header(_HEADER) or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        resp.set_header(_HEADER, request_id)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        """Forget the id."""
        structlog.contextvars.clear_contextvars()


class AccessLog:
    """Writes a line and counts for every request that was answered."""

    def __init__(self, metrics: ApiMetrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Note when work began."""
        req.context.began = time.perf_counter()

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Target | None, succeeded: bool
    ) -> None:
        """Tell route template, method, status and time, never the path itself."""
        elapsed = time.perf_counter() - req.context.began
        route = UNKNOWN_ROUTE if resource is None else f"/{resource.path}"
        method = req.method if req.method in METHODS else "other"
        self._metrics.count_request(route, method, str(resp.status_code), elapsed)
        log.info(
            "request",
            method=method,
            route=route,
            status=resp.status_code,
            milliseconds=round(elapsed * 1000, 3),
            org_id=getattr(req.context, "org_id", None),
        )


class EmptySegments:
    """Makes paths with an empty segment unknown, also where a parameter would match it."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raise HTTPRouteNotFound for such a path."""
        if "//" in req.env["PATH_INFO"] or _COLLAPSED.match(req.env.get("REQUEST_URI", "")):
            raise falcon.HTTPRouteNotFound
