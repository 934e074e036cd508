"""The API as a process, asked over the wire."""

import base64
import contextlib
import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from examples.demo.ports import free_port
from tests.support.databases import migrate_database
from tests.support.deployment import PREFIX, Answer, fetch
from tests.support.postgresql import table_locked, waiting_for_locks, with_select_only
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually

SERVERS = ["waitress", "granian"]
API = [sys.executable, "-m", "api_service.cli"]
CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
REPORT = (
    "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at)"
    f" VALUES (1, '{CLUSTER}', '{{}}', '2026-05-04 08:00:00', '2026-05-04 08:00:00.5')"
)
IDENTITY = base64.b64encode(b'{"identity": {"org_id": "1"}}').decode()


@dataclass(frozen=True)
class RawAnswer:
    """Status, headers and body of an HTTP answer, byte for byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Api:
    """A process `aggregator-api serve`, its port and its admin port."""

    def __init__(self, processes: Processes, database_url: str, **settings: str) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        environment = {
            "AGGREGATOR_DATABASE__URL": database_url,
            "AGGREGATOR_API__PORT": str(self.port),
            "AGGREGATOR_API__ADMIN_PORT": str(self.admin_port),
        }
        environment |= {f"AGGREGATOR_{name}": value for name, value in settings.items()}
        self.process: Process = processes.start("api", [*API, "serve"], environment)

    def wait_until_it_listens(self) -> "Api":
        """Wait until requests are answered."""
        self.process.wait_for_log("API started")
        return self

    def get(self, path: str) -> Answer:
        """Ask for a path relative to the prefix."""
        return fetch(self.port, PREFIX + path)

    def readiness(self) -> Answer:
        """Ask the admin port whether it is ready."""
        return fetch(self.admin_port, "/readyz")

    def send(self, request: bytes) -> RawAnswer:
        """Send bytes as they are and return the answer, read to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            # an answer to HEAD has a length and no body
            response = http.client.HTTPResponse(connection, method=request.split()[0].decode())
            response.begin()
            return RawAnswer(response.status, response.headers, response.read())

    def begin(self, path: str) -> http.client.HTTPConnection:
        """Send a request and return without waiting for the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", PREFIX + path)
        return connection

    def refuses_connections(self) -> bool:
        """Whether nobody listens on its port."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False


StartApi = Callable[..., Api]
"""Starts an API on a database; takes its URL and settings."""


def fill(url: str, *statements: str) -> str:
    """Make the schema in an empty database, run statements in it, and return its URL for a role that can only read."""
    return with_select_only(migrate_database(url, *statements))


def http_request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request as it goes over the wire; the connection is closed after its answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def api_request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request with an identity for a path relative to the prefix."""
    return http_request(method, PREFIX + path, f"X-Rh-Identity: {IDENTITY}", *headers, body=body)


@contextlib.contextmanager
def slow_requests(url: str) -> Iterator[Callable[[int], None]]:
    """Make every question about reports wait until the block ends; yield a wait for so many that do, or more."""

    def wait_for(count: int) -> None:
        eventually(lambda: waiting_for_locks(url) >= count, 10, f"{count} requests that wait")

    with table_locked(url, "report", "ACCESS EXCLUSIVE"):
        yield wait_for
