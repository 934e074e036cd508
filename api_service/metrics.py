"""What the API counts: a closed list, from which its metrics and their page in the documentation are made."""

from prometheus_client import CollectorRegistry

from libaggregator.build import BuildFacts
from libaggregator.metrics import BUILD_LABELS, Metric
from libaggregator.storage.faults import Fault

_ROUTE_LABELS = ("route", "method", "status")

REQUESTS = Metric(
    "counter",
    "aggregator_api_requests_total",
    "requests",
    "Answered requests; `route` is the template of the path, never the path itself.",
    _ROUTE_LABELS,
)
REQUEST_SECONDS = Metric(
    "histogram",
    "aggregator_api_request_seconds",
    "seconds",
    "Seconds from the start of a request's work to its answer, without the wait for a free thread.",
    _ROUTE_LABELS,
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
DATABASE_ERRORS = Metric(
    "counter",
    "aggregator_api_database_errors_total",
    "statements",
    "Statements that failed; `fault` is `outage` (answered with 503), or `statement` or `values` (a bug, 500).",
    ("fault",),
)
QUEUED_REQUESTS = Metric(
    "gauge", "aggregator_api_queued_requests", "requests", "Requests that have come and wait for a free thread."
)
DATABASE_CONNECTIONS = Metric(
    "gauge",
    "aggregator_api_database_connections",
    "connections",
    "Open connections to the database; each thread has at most one.",
)
DATABASE_CONNECTIONS_IN_USE = Metric(
    "gauge",
    "aggregator_api_database_connections_in_use",
    "connections",
    "Connections on which a statement is running.",
)
BUILD_INFO = Metric(
    "gauge",
    "aggregator_api_build_info",
    "1",
    "Always 1; the labels say what is running.",
    BUILD_LABELS,
    across="livemax",
)
DATABASE_AVAILABLE = Metric(
    "gauge",
    "aggregator_api_database_available",
    "0 or 1",
    "1 if the database answered when it was last asked, once a second; else 0.",
)
LISTENING_WORKERS = Metric(
    "gauge",
    "aggregator_api_listening_workers",
    "processes",
    "Processes that take connections: up to `api.workers`, 0 before the database is there.",
)
WORKER_RESTARTS = Metric(
    "counter",
    "aggregator_api_worker_restarts_total",
    "restarts",
    "Workers that ended by themselves and were started again.",
)

METRICS: tuple[Metric, ...] = (
    REQUESTS,
    REQUEST_SECONDS,
    QUEUED_REQUESTS,
    DATABASE_CONNECTIONS,
    DATABASE_CONNECTIONS_IN_USE,
    DATABASE_ERRORS,
    BUILD_INFO,
    DATABASE_AVAILABLE,
    LISTENING_WORKERS,
    WORKER_RESTARTS,
)
"""All of them, in the order of the documentation."""


class ApiMetrics:
    """The metrics of one API process, in `registry`.

    `registry` is also what is shown, unless the process is one of several workers and shows the metrics of all.
    """

    def __init__(self, registry: CollectorRegistry, build: BuildFacts, shown: CollectorRegistry | None = None) -> None:
        self.shown = shown or registry
        self.queued_requests = QUEUED_REQUESTS.gauge(registry)
        self.database_connections = DATABASE_CONNECTIONS.gauge(registry)
        self.database_connections_in_use = DATABASE_CONNECTIONS_IN_USE.gauge(registry)
        self._requests = REQUESTS.counter(registry)
        self._request_seconds = REQUEST_SECONDS.histogram(registry)
        self._database_errors = DATABASE_ERRORS.counter(registry)
        for fault in Fault:
            self._database_errors.labels(_label(fault))
        BUILD_INFO.gauge(registry).labels(build.version, build.branch, build.commit).set(1)

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, method, status).inc()
        self._request_seconds.labels(route, method, status).observe(seconds)

    def count_fault(self, fault: Fault) -> None:
        """Count a statement that failed."""
        self._database_errors.labels(_label(fault)).inc()


def _label(fault: Fault) -> str:
    return fault.name.lower()
