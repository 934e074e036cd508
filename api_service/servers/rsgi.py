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
_CLOSE = ("connection", "close")
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


class RefusedBodyError(Exception):
    """A body that is not read to its end; the request is answered with `status` and `text`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Answer(NamedTuple):
    """What the application answers, as granian takes it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Job(NamedTuple):
    """A request that is complete, whether its connection is to be closed, and the future of its answer.

    None if there can't be one.
    """

    scope: Scope
    body: bytes
    is_closing: Callable[[], bool]
    answer: asyncio.Future[_Answer | None]


class RsgiApplication:
    """Reads requests in the event loop and has them answered by threads of its own."""

    def __init__(
        self, app: Application, metrics: ApiMetrics, settings: ApiSettings, is_stopping: Callable[[], bool]
    ) -> None:
        """Take the application; once `is_stopping`, answers tell clients to close their connections."""
        self._app = app
        self._is_stopping = is_stopping
        self._metrics = metrics
        self._settings = settings
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def start_threads(self) -> None:
        """Start `api.threads` threads, which end with the process."""
        for number in range(self._settings.threads):
            Thread(target=self._work, name=f"api-{number}", daemon=True).start()

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        """Answer one request."""
        await self.answer(scope, protocol, self._is_stopping)

    async def answer(self, scope: Scope, protocol: Any, is_closing: Callable[[], bool]) -> None:
        """Answer one request; if `is_closing` when it is answered, tell the client to close its connection."""
        try:
            body = await self._body(scope, protocol)
        except RefusedBodyError as refused:
            protocol.response_str(refused.status, [*_TEXT, _CLOSE], f"{refused.text}\n")
            return
        job = _Job(scope, body, is_closing, asyncio.get_running_loop().create_future())
        self._jobs.put(job)
        self._metrics.queued_requests.set(self._jobs.qsize())
        # by this thread alone: granian's memory for large bodies stays with each thread that hands it one
        if answer := await job.answer:
            protocol.response_bytes(*answer)

    async def _body(self, scope: Scope, protocol: Any) -> bytes:
        """Return the body of a request; raises RefusedBodyError if it is too long, broken, or ceases to come."""
        length = scope.headers.get("content-length")
        encoding = scope.headers.get("transfer-encoding")
        if length is None and encoding is None:
            return b""
        if encoding is not None and encoding.lower() != "chunked":
            raise RefusedBodyError(501, "unknown transfer encoding")
        if length is not None and int(length) > self._settings.max_body_bytes:
            raise self._too_large()
        try:
            body, is_whole = await self._read(protocol)
        except TimeoutError:
            raise RefusedBodyError(408, "the body did not come in time") from None
        if not is_whole or (encoding is None and len(body) != int(length or 0)):
            raise RefusedBodyError(400, "the body is broken")
        return body

    async def _read(self, protocol: Any) -> tuple[bytes, bool]:
        """Return what came of a body, and whether that is all of it.

        granian gives an empty chunk at the end, and no error if the body breaks off, but another empty chunk.
        """
        body = bytearray()
        empty_chunks = 0
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(self._settings.idle_timeout) as silence:
            async for chunk in protocol:
                silence.reschedule(now() + self._settings.idle_timeout)
                empty_chunks += not chunk
                body += chunk
                if len(body) > self._settings.max_body_bytes:
                    raise self._too_large()
        return bytes(body), empty_chunks == 1

    def _too_large(self) -> RefusedBodyError:
        return RefusedBodyError(413, f"more than {self._settings.max_body_bytes} bytes")

    def _work(self) -> None:
        while True:
            # nothing of a request is held while the next one is waited for: bodies can be large
            self._finish_one(self._jobs.get())

    def _finish_one(self, job: _Job) -> None:
        self._metrics.queued_requests.set(self._jobs.qsize())
        answer = None
        try:
            answer = self._answer(job)
        except Exception:
            # the application answers its own faults, so this one is around it; granian says 500
            log.exception("a request could not be answered")
        job.answer.get_loop().call_soon_threadsafe(_finish, job.answer, answer)

    def _answer(self, job: _Job) -> _Answer:
        """Return what the application answers."""
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None, /
        ) -> Callable[[bytes], object]:
            started.append((int(status.partition(" ")[0]), headers))
            # Falcon returns its body, and never writes it
            return _refuse_to_write

        body = b"".join(self._app(environ(job.scope, job.body), start_response))
        status, headers = started[-1]
        closing = [_CLOSE] if job.is_closing() else []
        return _Answer(status, [*headers, _SERVER, *closing], body)


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


def _finish(future: asyncio.Future[_Answer | None], answer: _Answer | None) -> None:
    # granian may have given up the request meanwhile
    if not future.done():
        future.set_result(answer)
