"""The HTTP server: waitress, in a loop of our own that answers what it has accepted before it ends.

waitress does not drain by itself: it cancels what is queued and cuts what takes longer than five seconds.
"""

import select
import socket
import time
from typing import Any

import structlog
from waitress import wasyncore
from waitress.server import create_server

from api_service.app import Application
from api_service.settings import ApiSettings
from libaggregator.admin import Heartbeat

_TURN_SECONDS = 1.0
# well below the 1,024 open files that a process usually may have
_MAX_CONNECTIONS = 500
_THREADS_STOP_SECONDS = 1.0

log = structlog.get_logger(__name__)


class DrainingServer:
    """Serves an application on `api.host` and `api.port` until it is told to stop; `heartbeat` beats meanwhile."""

    def __init__(self, app: Application, settings: ApiSettings, heartbeat: Heartbeat) -> None:
        """Take the port, but don't listen yet. Raises OSError if it can't be had."""
        self._app = app
        self._settings = settings
        self._heartbeat = heartbeat
        self._socket = _bound_socket(settings.host, settings.port)
        self._channels: dict[int, Any] = {}
        self._server: Any = None
        self.stop_requested = False

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self._socket.getsockname()[1])

    def request_stop(self) -> None:
        """Make `run` end; may be called from a signal handler."""
        self.stop_requested = True
        if self._server:
            self._server.pull_trigger()

    def check_listening(self) -> str | None:
        """Return what is wrong, None once the port is listened on."""
        return None if self._server else "the API does not listen yet"

    def check_stopping(self) -> str | None:
        """Return what is wrong, None until the process was told to stop."""
        return "the process was told to stop" if self.stop_requested else None

    def listen(self) -> None:
        """Begin to take connections; they are answered by `run`."""
        self._server = create_server(
            self._app,
            self._channels,
            sockets=[self._socket],
            threads=self._settings.threads,
            # waitress refuses a body that has as many bytes as its limit
            max_request_body_size=self._settings.max_body_bytes + 1,
            connection_limit=_MAX_CONNECTIONS,
            log_socket_errors=False,
            ident="aggregator-api",
        )

    def run(self) -> None:
        """Answer requests; after `request_stop` wait `shutdown_delay`, listen no more, and finish what came."""
        while not self.stop_requested:
            self._turn(_TURN_SECONDS)
        self._turn_until(time.monotonic() + self._settings.shutdown_delay)
        self._stop_listening()
        self._finish_requests(time.monotonic() + self._settings.shutdown_timeout)
        self._server.task_dispatcher.shutdown(timeout=_THREADS_STOP_SECONDS)
        wasyncore.close_all(self._channels)

    def _turn(self, seconds: float) -> None:
        """Read and write what can be; wait for it up to so many seconds, less if a thread has an answer."""
        self._heartbeat.beat()
        wasyncore.loop(seconds, use_poll=True, map=self._channels, count=1)

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


def _bound_socket(host: str, port: int) -> socket.socket:
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # a name like `localhost` has several addresses
    family, kind, protocol, _, address = min(addresses, key=lambda found: found[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
