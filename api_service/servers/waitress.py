"""The server waitress, in a loop of our own that answers what it has accepted before it ends.

waitress does not drain by itself: it cancels what is queued and cuts what takes longer than five seconds.
"""

import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from waitress import wasyncore
from waitress.server import create_server

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.servers import MAX_HEAD_BYTES
from api_service.settings import ApiSettings

_TURN_SECONDS = 1.0
# well below the 1,024 open files that a process usually may have
_MAX_CONNECTIONS = 500
# how many connections without work are closed, when there is no room for another one
_ROOM = 50
_THREADS_STOP_SECONDS = 1.0

log = structlog.get_logger(__name__)


class WaitressServer:
    """Serves an application on a bound socket; several processes can share one."""

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
        self._socket = bound
        self._channels: dict[int, Any] = {}
        self._server: Any = None
        self.stop_requested = False

    def request_stop(self) -> None:
        """Make `run` end, or not begin; may be called from a signal handler."""
        self.stop_requested = True
        if self._server:
            self._server.pull_trigger()

    def run(self, when_listening: Callable[[], None]) -> None:
        """Answer requests; after `request_stop` wait `shutdown_delay`, listen no more, and finish what came."""
        self._listen()
        when_listening()
        while not self.stop_requested:
            self._turn(_TURN_SECONDS)
        self._turn_until(time.monotonic() + self._settings.shutdown_delay)
        self._stop_listening()
        self._finish_requests(time.monotonic() + self._settings.shutdown_timeout)
        self._server.task_dispatcher.shutdown(timeout=_THREADS_STOP_SECONDS)
        wasyncore.close_all(self._channels)

    def _listen(self) -> None:
        self._server = create_server(
            self._app,
            self._channels,
            sockets=[self._socket],
            threads=self._settings.threads,
            # waitress refuses a body that has as many bytes as its limit
            max_request_body_size=self._settings.max_body_bytes + 1,
            max_request_header_size=MAX_HEAD_BYTES,
            connection_limit=_MAX_CONNECTIONS,
            channel_timeout=self._settings.idle_timeout,
            cleanup_interval=max(1, self._settings.idle_timeout // 4),
            # a client that reads slowly must not hold the thread that has its answer
            outbuf_high_watermark=sys.maxsize,
            log_socket_errors=False,
            ident="aggregator-api",
        )

    def _turn(self, seconds: float) -> None:
        """Read and write what can be; wait for it up to so many seconds, less if a thread has an answer."""
        self._beat()
        wasyncore.loop(seconds, use_poll=True, map=self._channels, count=1)
        self._metrics.queued_requests.set(len(self._server.task_dispatcher.queue))
        if len(self._channels) >= _MAX_CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connections that have been without work for longest, so that silent clients keep nobody out."""
        idle = [channel for channel in self._server.active_channels.values() if not channel.requests]
        for channel in sorted(idle, key=lambda channel: channel.last_activity)[:_ROOM]:
            channel.will_close = True

    def _turn_until(self, end: float) -> None:
        while (remaining := end - time.monotonic()) > 0:
            self._turn(min(remaining, _TURN_SECONDS))

    def _stop_listening(self) -> None:
        """Close the listening socket alone: threads still wake the loop by the server's trigger."""
        # connections that the kernel has accepted for us would be reset
        while select.select([self._socket], [], [], 0)[0]:
            self._server.handle_accept()
        wasyncore.dispatcher.close(self._server)
        # what has arrived on open connections counts as accepted
        self._turn(0)

    def _finish_requests(self, deadline: float) -> None:
        """Go on until no connection has work; connections are closed as soon as they have none."""
        connections = self._server.active_channels
        while connections and (remaining := deadline - time.monotonic()) > 0:
            for channel in list(connections.values()):
                _close_when_idle(channel)
            self._turn(min(remaining, _TURN_SECONDS))
        if connections:
            log.warning("requests were cut off", connections=len(connections))


def _close_when_idle(channel: Any) -> None:
    """Close a connection that has no work, and tell the client of one that has that it will be closed."""
    with channel.requests_lock:
        if channel.requests:
            channel.requests[-1].headers["CONNECTION"] = "close"
        # a request that has come in part is waited for
        elif channel.request is None and not channel.total_outbufs_len:
            channel.will_close = True
