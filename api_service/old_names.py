"""Names of the API's metrics in existing deployments."""

from collections.abc import Sequence

from api_service import metrics
from libaggregator.old_names import Labels, LabelValues, OldMetric


def old_metrics(prefix: str) -> Sequence[OldMetric]:
    """Return all of them, in the order of the documentation; `prefix` is `api.prefix`.

    An endpoint is the template of a path with the prefix. A path that nobody knows is none.
    """

    def endpoint(labels: Labels) -> LabelValues | None:
        route = labels["route"]
        return (prefix + route.removeprefix("/"),) if route.startswith("/") else None

    return (
        OldMetric(
            "counter",
            "api_endpoints_requests",
            "requests",
            "Answered requests; `endpoint` is the template of the path with `api.prefix`, unknown paths are left out",
            metrics.REQUESTS,
            endpoint,
            ("endpoint",),
        ),
        OldMetric(
            "histogram",
            "api_endpoints_response_time",
            "seconds",
            "Seconds from the start of a request's work to its answer",
            metrics.REQUEST_SECONDS,
            endpoint,
            ("endpoint",),
        ),
        OldMetric(
            "counter",
            "api_endpoints_status_codes",
            "requests",
            "Answered requests by status, unknown paths included",
            metrics.REQUESTS,
            lambda labels: (labels["status"],),
            ("status_code",),
        ),
    )
