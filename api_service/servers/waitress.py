"""The server waitress, in a loop of our own that answers what it has accepted before it ends.

waitress does not drain by itself: it cancels what is queued and cuts what takes longer than five seconds.
"""

import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from waitress import wasyncore
from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher, WSGITask

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.servers import MAX_HEAD_BYTES, connections_within_file_limit, port_is_taken
from api_service.servers.channel import Channel
from api_service.servers.ports import (
    BACKLOG,
    arrival_seconds,
    first_request_seconds,
    has_input,
    let_nobody_in,
    socket_to_listen_on,
)
from api_service.servers.tls import Certificate, certificate_of
from api_service.servers.tls_channel import TlsChannel, secured
from api_service.settings import ApiSettings

_TURN_SECONDS = 1.0
_MAX_CONNECTIONS = 500
# the connection, and a file in which a large answer waits for a slow client
_FILES_EACH = 2
# how many connections without work are closed, when there is no room for another one
_ROOM = 50
_THREADS_STOP_SECONDS = 1.0

log = structlog.get_logger(__name__)


class WaitressServer:
    """Serves an application on the address of a bound socket; several processes can share an address."""

    def __init__(
        self,
        app: Application,
        metrics: ApiMetrics,
        settings: ApiSettings,
        bound: socket.socket,
        beat: Callable[[], None],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._settings = settings
        self._beat = beat
        self._bound = bound
        self._certificate = certificate_of(settings)
        self._channels: dict[int, Any] = {}
        self._server: Any = None
        self._dispatcher = _Dispatcher()
        self._max_connections = _MAX_CONNECTIONS
        self.is_listening = False
        self.stop_requested = False

    def request_stop(self) -> None:
        """Make `run` end, or not begin; may be called from a signal handler."""
        self.stop_requested = True
        if self._server:
            self._server.pull_trigger()

    def run(self, when_listening: Callable[[], None]) -> None:
        """Answer requests; after `request_stop` wait `shutdown_delay`, listen no more, and finish what came."""
        self._max_connections = connections_within_file_limit(_MAX_CONNECTIONS, _FILES_EACH)
        try:
            listening = socket_to_listen_on(self._bound)
            self._open_server(listening)
        except OSError as error:
            raise port_is_taken(self._settings, error) from None
        self.is_listening = True
        when_listening()
        while not self.stop_requested:
            self._turn(_TURN_SECONDS)
        self._turn_until(time.monotonic() + self._settings.shutdown_delay)
        deadline = time.monotonic() + self._settings.shutdown_timeout
        self._stop_listening(listening)
        self._finish_requests(deadline)
        self._dispatcher.shutdown(timeout=_THREADS_STOP_SECONDS)
        wasyncore.close_all(self._channels)

    def _open_server(self, listening: socket.socket) -> None:
        self._dispatcher.set_thread_count(self._settings.threads)
        self._server = create_server(
            self._app,
            self._channels,
            _dispatcher=self._dispatcher,
            sockets=[listening],
            backlog=BACKLOG,
            url_scheme="https" if self._certificate else "http",
            threads=self._settings.threads,
            # waitress refuses a body that has as many bytes as its limit
            max_request_body_size=self._settings.max_body_bytes + 1,
            max_request_header_size=MAX_HEAD_BYTES,
            connection_limit=self._max_connections,
            channel_timeout=self._settings.idle_timeout,
            cleanup_interval=max(1, self._settings.idle_timeout // 4),
            # a client that reads slowly must not hold the thread that has its answer
            outbuf_high_watermark=sys.maxsize,
            log_socket_errors=False,
            ident="aggregator-api",
        )
        self._server.channel_class = _channel_class(lambda: self.stop_requested, self._certificate)

    def _turn(self, seconds: float) -> None:
        """Read and write what can be; wait for it up to so many seconds, less if a thread has an answer."""
        self._beat()
        if self._certificate:
            self._certificate.look()
        wasyncore.loop(seconds, use_poll=True, map=self._channels, count=1)
        self._dispatcher.start_held()
        self._metrics.queued_requests.set(len(self._dispatcher.queue))
        if len(self._channels) >= self._max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connections that have been without work for longest, so that silent clients keep nobody out.

        If all have work, those that have not got on with it for longest are closed.
        """
        waiting = [channel for channel in self._server.active_channels.values() if not channel.requests]
        idle = [channel for channel in waiting if _is_idle(channel)] or waiting
        for channel in sorted(idle, key=lambda channel: channel.last_activity)[:_ROOM]:
            channel.will_close = True

    def _turn_until(self, end: float) -> None:
        while (remaining := end - time.monotonic()) > 0:
            self._turn(min(remaining, _TURN_SECONDS))

    def _stop_listening(self, listening: socket.socket) -> None:
        """Close the listening socket alone: threads still wake the loop by the server's trigger."""
        if let_nobody_in(listening):
            self._turn_until(time.monotonic() + arrival_seconds(self._settings.shutdown_timeout))
        # connections that the kernel has accepted for us would be reset
        while has_input(listening):
            self._server.handle_accept()
        wasyncore.dispatcher.close(self._server)

    def _finish_requests(self, deadline: float) -> None:
        """Go on until no connection is open; after a moment for requests to come, each is closed that has no work."""
        connections = self._server.active_channels
        patience = time.monotonic() + first_request_seconds(self._settings.shutdown_timeout)
        while connections and (remaining := deadline - time.monotonic()) > 0:
            waiting = max(0.0, patience - time.monotonic())
            for channel in list(connections.values()):
                _close_when_idle(channel, waits=waiting > 0)
            self._turn(min(remaining, waiting or _TURN_SECONDS))
        if connections:
            log.warning("requests were cut off", connections=len(connections))


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Has threads answer requests; those that one client sent at once are answered as fast as it reads.

    waitress would answer them all, however large the answers, and keep what the client does not take.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: deque[Any] = deque()

    def add_task(self, task: Any) -> None:
        """Take a connection that has a request; it waits for its turn if its last answer has not gone out."""
        if task.total_outbufs_len:
            self._held.append(task)
        else:
            super().add_task(task)

    def start_held(self) -> None:
        """Go on with the connections whose answers have gone out."""
        for _ in range(len(self._held)):
            self.add_task(self._held.popleft())


def _channel_class(is_stopping: Callable[[], bool], certificate: Certificate | None) -> Callable[..., Any]:
    """Return what makes a channel of waitress of a connection that was taken."""

    class Task(WSGITask):  # type: ignore[misc]
        def build_response_header(self) -> bytes:
            if is_stopping():
                self.request.headers["CONNECTION"] = "close"
            header: bytes = super().build_response_header()
            return header

        def set_close_on_finish(self) -> None:
            # 304 has no length, and needs none to be told from the next answer
            if self.has_body or self.version == "1.0" or self.request.headers.get("CONNECTION", "").lower() == "close":
                super().set_close_on_finish()

    class PlainChannel(Channel):
        task_class = Task

    class SecureChannel(TlsChannel):
        task_class = Task

    def open_secure_channel(server: Any, connection: socket.socket, *arguments: Any, **options: Any) -> None:
        if certificate and (secure := secured(connection, certificate.context)):
            SecureChannel(server, secure, *arguments, **options)

    return open_secure_channel if certificate else PlainChannel


def _is_idle(channel: Any) -> bool:
    """Say whether a connection has no work: no request, also none in part, and no answer on its way."""
    return not channel.requests and channel.request is None and not channel.total_outbufs_len


def _close_when_idle(channel: Any, waits: bool) -> None:
    """Close a connection that has no work, unless it `waits`; tell the client of one that has that it will be closed.

    One that has sent something that was not read yet has work: closed like that, the request would be lost.
    """
    with channel.requests_lock:
        if channel.requests:
            channel.requests[-1].headers["CONNECTION"] = "close"
        elif not waits and _is_idle(channel) and not has_input(channel.socket):
            channel.will_close = True
