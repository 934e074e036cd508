"""The admin port of both processes: `/livez`, `/readyz` and `/metrics`, answered by a thread of its own.

Liveness means that the process's loop came round lately; an outage of database or broker never fails it.
Readiness names each check and what is wrong with it.
"""

import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from libaggregator.settings import SettingsError

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.05  # how often the thread looks whether it has to stop

Check = Callable[[], str | None]
"""Returns None if all is well, else in one line what is not."""


class Heartbeat:
    """Set by a loop each time it comes round; fails as a check if it has not for `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._last = time.monotonic()

    def beat(self) -> None:
        """Tell that the loop came round."""
        self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """Return how long ago the loop came round."""
        return time.monotonic() - self._last

    def check(self) -> str | None:
        """Return what is wrong, None if the loop came round lately."""
        silent = self.silent_seconds()
        return f"the loop has not come round for {silent:.0f} s" if silent > self._patience else None


@dataclass(frozen=True, slots=True)
class Health:
    """The checks behind `/livez` and `/readyz`, by name."""

    live: Mapping[str, Check]
    ready: Mapping[str, Check]


class AdminServer:
    """Serves health and metrics from `start()` to `stop()`."""

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        """Bind the port at once, so that one that is taken raises OSError here; 0 takes any free one."""
        handler = type("Handler", (_Handler,), {"health": health, "registry": registry})
        server = _Server6 if ":" in host else _Server
        self._server = server((host, port), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(_LOOK_SECONDS,), name="admin", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def open_admin_port(section: str, host: str, port: int, health: Health, registry: CollectorRegistry) -> AdminServer:
    """Return the server of the settings `admin_host` and `admin_port` of a section, bound and not started.

    Raises SettingsError if the port can't be had.
    """
    try:
        return AdminServer(host, port, health, registry)
    except OSError as error:
        raise port_error(f"{section}.admin_port", host, port, error) from None


def port_error(setting: str, host: str, port: int, error: OSError) -> SettingsError:
    """Return the refusal of a start whose port can't be listened on."""
    return SettingsError([f"{setting}: can't listen on {host}:{port}: {error.strerror}"])


def ask(host: str, port: int, path: str, timeout: float) -> tuple[bool, str]:
    """Ask an admin port; return whether it answered 200, and its answer or what went wrong."""
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status == 200, response.read().decode().strip()  # noqa: PLR2004
    except (OSError, HTTPException) as error:
        return False, f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what went wrong, unless it is just a client that went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            log.exception("the admin port could not answer")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    health: Health
    registry: CollectorRegistry
    timeout = 10  # a silent client does not hold a thread for longer
    server_version = "aggregator"
    sys_version = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/livez":
                self._answer_checks(self.health.live, set())
            case "/readyz":
                self._answer_checks(self.health.ready, set(parse_qs(url.query).get("exclude", [])))
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))
            case _:
                self._answer(404, "text/plain; charset=utf-8", b"try /livez, /readyz or /metrics\n")

    def _answer_checks(self, checks: Mapping[str, Check], excluded: set[str]) -> None:
        problems = {name: check() for name, check in checks.items() if name not in excluded}
        failed = any(problems.values())
        body = {
            "status": "failed" if failed else "ok",
            "checks": {name: problem or "ok" for name, problem in problems.items()},
        }
        self._answer(503 if failed else 200, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Probes and scrapes are not worth a line."""
