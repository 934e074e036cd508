"""The server granian, in this process: its threads speak HTTP and TLS, its event loop reads bodies, ours answer.

granian reads a certificate once, and closes a port without taking who waits there. So each certificate has a granian
of its own, and each granian a listening socket that we close.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.servers import MAX_HEAD_BYTES, connections_within_file_limit, port_is_taken
from api_service.servers.granian_on_socket import GranianOnSocket
from api_service.servers.ports import (
    BACKLOG,
    arrival_seconds,
    first_request_seconds,
    has_input,
    let_nobody_in,
    socket_to_listen_on,
)
from api_service.servers.rsgi import RsgiApplication, Scope
from api_service.servers.tls import Certificate, certificate_of, tell_unusable
from api_service.settings import ApiSettings

_TURN_SECONDS = 0.05
_MAX_CONNECTIONS = 4096

log = structlog.get_logger(__name__)


class GranianServer:
    """Serves an application on the address of a bound socket; several processes can share an address."""

    def __init__(
        self,
        app: Application,
        metrics: ApiMetrics,
        settings: ApiSettings,
        bound: socket.socket,
        beat: Callable[[], None],
    ) -> None:
        self._app = RsgiApplication(app, metrics, settings, is_stopping=lambda: self.stop_requested)
        self._certificate = certificate_of(settings)
        self._settings = settings
        self._bound = bound
        self._beat = beat
        self._leaving: dict[_Listener, asyncio.Task[None]] = {}
        self.is_listening = False
        self.stop_requested = False

    def request_stop(self) -> None:
        """Make `run` end, or not begin; may be called from a signal handler."""
        self.stop_requested = True

    def run(self, when_listening: Callable[[], None]) -> None:
        """Answer requests; after `request_stop` wait `shutdown_delay`, listen no more, and finish what came."""
        self._app.start_threads()
        uvloop.run(self._serve(when_listening))

    async def _serve(self, when_listening: Callable[[], None]) -> None:
        try:
            listener = await self._open_listener()
        except OSError as error:
            raise port_is_taken(self._settings, error) from None
        self.is_listening = True
        when_listening()
        while not self.stop_requested:
            await self._turn()
            if listener.has_ended:
                raise RuntimeError("granian ended by itself")
            if self._certificate and self._certificate.look():
                listener = await self._follow(listener)
        await self._turn_until(time.monotonic() + self._settings.shutdown_delay)
        ending = asyncio.create_task(self._end([listener, *self._leaving]))
        await self._turn_until(time.monotonic() + self._settings.shutdown_timeout, ending.done)
        if not ending.done():
            log.warning("requests were cut off")

    async def _open_listener(self) -> "_Listener":
        listener = _Listener(self._app, self._settings, self._bound, self._certificate, lambda: self.stop_requested)
        await listener.begin()
        return listener

    async def _follow(self, before: "_Listener") -> "_Listener":
        """Return a listener with the new certificate, beside which the one before comes to its end.

        If the new one can't begin, the one before goes on.
        """
        try:
            listener = await self._open_listener()
        except (OSError, RuntimeError) as error:
            tell_unusable(error.__cause__ or error)
            return before
        self._leaving[before] = leaving = asyncio.create_task(before.leave())
        leaving.add_done_callback(lambda _: self._leaving.pop(before))
        return listener

    async def _end(self, listeners: "list[_Listener]") -> None:
        for leaving in self._leaving.values():
            leaving.cancel()
        await asyncio.gather(*(listener.close_port() for listener in listeners))
        await asyncio.sleep(first_request_seconds(self._settings.shutdown_timeout))
        await asyncio.gather(*(listener.finish() for listener in listeners))

    async def _turn(self) -> None:
        self._beat()
        await asyncio.sleep(_TURN_SECONDS)

    async def _turn_until(self, end: float, is_done: Callable[[], bool] = lambda: False) -> None:
        while time.monotonic() < end and not is_done():
            await self._turn()


class _Listener:
    """One granian and the socket that it listens on."""

    def __init__(
        self,
        app: RsgiApplication,
        settings: ApiSettings,
        bound: socket.socket,
        certificate: Certificate | None,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Take the parts; raises OSError if it can't have the address or read the certificate."""
        self._app = app
        self._settings = settings
        self._is_leaving = False
        self._is_stopping = is_stopping
        self._socket = socket_to_listen_on(bound)
        # granian closes the one that it is given
        self._granians_socket = self._socket.dup().detach()
        self._server = GranianOnSocket(
            self,
            self._granians_socket,
            interface=Interfaces.RSGI,
            # asked to speak HTTP/2 too, it waits without end for the first byte of a connection
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            # each is an open file
            backpressure=connections_within_file_limit(_MAX_CONNECTIONS),
            http1_settings=HTTP1Settings(
                header_read_timeout=settings.idle_timeout * 1000, max_buffer_size=MAX_HEAD_BYTES
            ),
            ssl_cert=certificate.certificate_file if certificate else None,
            ssl_key=certificate.key_file if certificate else None,
            ssl_protocol_min=SSLProtocols.tls12,
            log_dictconfig={"loggers": {"_granian": {"propagate": True}}},
            log_level=LogLevels.error,
        )
        self._serving: asyncio.Task[None] | None = None

    def __rsgi__(self, scope: Scope, protocol: Any) -> Coroutine[Any, Any, None]:
        """Answer one request."""
        return self._app.answer(scope, protocol, self._is_closing)

    @property
    def has_ended(self) -> bool:
        """Whether granian has ended, asked or by itself."""
        return self._serving is not None and self._serving.done()

    async def begin(self) -> None:
        """Return as soon as connections are taken; raises RuntimeError if granian can't begin."""
        self._serving = asyncio.create_task(self._server.serve())
        while not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            await asyncio.sleep(0)
            if self._serving.done():
                raise RuntimeError("granian can't begin") from self._serving.exception()

    async def leave(self) -> None:
        """Make room for another one: take no new connections, and end when those that are open have come to theirs.

        A client is told to close its connection by the next answer, or is silent for so long that it is closed.
        """
        self._is_leaving = True
        if await self.close_port():
            await asyncio.sleep(self._settings.idle_timeout)
        await self.finish()

    async def close_port(self) -> bool:
        """Take the connections that the kernel has for us, and no new ones; False if the system can't do that.

        Then `finish` closes the port. It is done already if it was asked for before.
        """
        if self._socket.fileno() == -1:
            return True
        if not let_nobody_in(self._socket):
            return False
        await asyncio.sleep(arrival_seconds(self._settings.shutdown_timeout))
        while has_input(self._socket):
            await asyncio.sleep(_TURN_SECONDS)
        # the port is closed once nobody has the socket; granian, which could only be made to close it together with
        # the connections, gets one in its place on which nobody ever arrives
        with socket.socket(self._socket.family) as nobodys:
            os.dup2(nobodys.fileno(), self._granians_socket)
        self._socket.close()
        return True

    async def finish(self) -> None:
        """Close connections without work at once, the others after their answers."""
        self._server.stop()  # type: ignore[no-untyped-call]
        if self._serving:
            await asyncio.wait([self._serving])
        self._socket.close()

    def _is_closing(self) -> bool:
        return self._is_leaving or self._is_stopping()
