"""Settings of the API process."""

from dataclasses import dataclass
from typing import Literal

from libaggregator.settings import DatabaseSettings, LoggingSettings, MetricsSettings, setting


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Section `api`."""

    host: str = setting("127.0.0.1", "address that is listened on")
    port: int = setting(8080, "port of the API; 0: any free one", 0, 65535)
    admin_host: str = setting("127.0.0.1", "address of the admin port")
    admin_port: int = setting(8082, "port for `/livez`, `/readyz`, `/metrics`; 0: any free one", 0, 65535)
    tls_certificate: str = setting(
        "", "PEM file of the certificate, its chain after it; the API's port speaks HTTPS then, the admin port never"
    )
    tls_private_key: str = setting("", "PEM file of its key, not encrypted; both files are read again when they change")
    prefix: str = setting("/api/insights-results-aggregator/v1/", "what every path begins with, and the main endpoint")
    auth: Literal["none", "xrh"] = setting("none", "whether requests need an identity in `x-rh-identity`")
    server: Literal["waitress", "granian"] = setting("waitress", "the HTTP server; granian is the faster one")
    workers: int = setting(1, "processes that answer requests", 1, 256)
    threads: int = setting(4, "requests that a process answers at the same time", 1, 1000)
    max_body_bytes: int = setting(2_097_152, "bytes that the body of a request may have", 1)
    idle_timeout: int = setting(75, "seconds that a connection may be silent before it is closed", 1, 86_400)
    shutdown_delay: float = setting(0.0, "seconds between not ready and closing the port, when told to stop", 0, 86_400)
    shutdown_timeout: float = setting(30.0, "seconds for the requests in hand, when told to stop", 0, 86_400)
    org_overview_limit_hours: int = setting(3, "age in hours up to which the cluster list has a cluster", 1)


@dataclass(frozen=True, slots=True)
class ApiProcessSettings:
    """Everything that `aggregator-api` reads."""

    database: DatabaseSettings
    logging: LoggingSettings
    metrics: MetricsSettings
    api: ApiSettings
