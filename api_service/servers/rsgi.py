"""The application behind granian's own interface, RSGI (https://github.com/emmett-framework/granian, `docs/spec`).

granian speaks WSGI too, but then it can't tell `x_rh_identity` from `x-rh-identity`, and a client that sends its body
slowly holds a thread. Here the body is read by the event loop, and a thread gets a request that is complete.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, Protocol

import structlog

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.settings import ApiSettings

_SERVER = ("server", "aggregator-api")
_TEXT = [("content-type", "text/plain; charset=utf-8"), _SERVER]

log = structlog.get_logger(__name__)


class Headers(Protocol):
    """The headers of a request, names in lower case."""

    def __contains__(self, key: str) -> bool:
        """Say whether there is such a header."""

    def get(self, key: str) -> str | None:
        """Return the first value of a header, None if there is none."""

    def keys(self) -> list[str]:
        """Return each name once."""

    def get_all(self, key: str) -> list[str]:
        """Return the values of a header that are text."""


class Scope(Protocol):
    """What is known of a request before its body is read."""

    http_version: str
    scheme: str
    method: str
    path: str
    query_string: str
    server: str
    client: str
    headers: Headers


class RequestTooLargeError(Exception):
    """The body has more bytes than `api.max_body_bytes`."""


class _Job(NamedTuple):
    """A request that is complete, and the future that is done when it is answered."""

    scope: Scope
    protocol: Any
    body: bytes
    answered: asyncio.Future[None]


class RsgiApplication:
    """Reads requests in the event loop and has them answered by threads of its own."""

    def __init__(self, app: Application, metrics: ApiMetrics, settings: ApiSettings) -> None:
        self._app = app
        self._metrics = metrics
        self._settings = settings
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def start_threads(self) -> None:
        """Start `api.threads` threads, which end with the process."""
        for number in range(self._settings.threads):
            Thread(target=self._work, name=f"api-{number}", daemon=True).start()

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        """Answer one request."""
        try:
            body = await self._body(scope, protocol)
        except RequestTooLargeError:
            protocol.response_str(413, _TEXT, f"more than {self._settings.max_body_bytes} bytes\n")
            return
        except TimeoutError:
            protocol.response_str(408, _TEXT, "the body did not come in time\n")
            return
        answered = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(scope, protocol, body, answered))
        self._metrics.queued_requests.set(self._jobs.qsize())
        await answered

    async def _body(self, scope: Scope, protocol: Any) -> bytes:
        """Return the body of a request.

        Raises RequestTooLargeError as soon as it is known to be too long, TimeoutError if it ceases to come.
        """
        length = scope.headers.get("content-length")
        if length is None and "transfer-encoding" not in scope.headers:
            return b""
        if length is not None and int(length) > self._settings.max_body_bytes:
            raise RequestTooLargeError
        body = bytearray()
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(self._settings.idle_timeout) as silence:
            async for chunk in protocol:
                silence.reschedule(now() + self._settings.idle_timeout)
                body += chunk
                if len(body) > self._settings.max_body_bytes:
                    raise RequestTooLargeError
        return bytes(body)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            self._metrics.queued_requests.set(self._jobs.qsize())
            try:
                status, headers, body = self._answer(job)
                job.protocol.response_bytes(status, [*headers, _SERVER], body)
            except Exception:
                # the application answers its own faults, so this one is around it; granian says 500
                log.exception("a request could not be answered")
            job.answered.get_loop().call_soon_threadsafe(_finish, job.answered)

    def _answer(self, job: _Job) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body of the application's answer."""
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None, /
        ) -> Callable[[bytes], object]:
            started.append((int(status.partition(" ")[0]), headers))
            # Falcon returns its body, and never writes it
            return _refuse_to_write

        body = b"".join(self._app(environ(job.scope, job.body), start_response))
        return *started[-1], body


def environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request.

    A header whose name has an underscore is left out: WSGI can't tell it from the one with a hyphen, which a proxy
    may have checked. Values of a header that was sent twice are joined by commas.
    """
    host, _, port = scope.server.rpartition(":")
    env: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
    }
    for name in scope.headers.keys():  # noqa: SIM118 - no mapping
        if "_" not in name:
            env[f"HTTP_{name.upper().replace('-', '_')}"] = _joined(scope.headers.get_all(name))
    env["CONTENT_TYPE"] = env.pop("HTTP_CONTENT_TYPE", "")
    env["CONTENT_LENGTH"] = str(len(body))
    for name in ("HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        env.pop(name, None)
    return env


def _refuse_to_write(data: bytes) -> None:
    raise NotImplementedError


def _joined(values: Sequence[str]) -> str:
    # a value that is not ASCII is not among them; the header must not look as if it had not been sent
    return ",".join(values) if values else "\N{REPLACEMENT CHARACTER}"


def _finish(answered: asyncio.Future[None]) -> None:
    # granian may have given up the request meanwhile
    if not answered.done():
        answered.set_result(None)
