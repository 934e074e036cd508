"""The server granian, in this process: its threads speak HTTP, its event loop reads bodies, ours answer."""

import asyncio
import socket
import time
from collections.abc import Callable

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server as EmbeddedGranian

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.servers import MAX_HEAD_BYTES, raise_file_limit
from api_service.servers.rsgi import RsgiApplication
from api_service.settings import ApiSettings

_TURN_SECONDS = 0.05
_MAX_CONNECTIONS = 4096
_OTHER_FILES = 128

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
        self._settings = settings
        self._socket = bound
        self._beat = beat
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
        address, port, *_ = self._socket.getsockname()
        # granian opens the port by itself
        self._socket.close()
        server = self._server(address, port)
        serving = asyncio.create_task(server.serve())
        await self._wait_until_it_listens(serving, address, port)
        self.is_listening = True
        when_listening()
        while not self.stop_requested:
            await self._turn()
            if serving.done():
                raise RuntimeError("granian ended by itself") from serving.exception()
        await self._turn_until(time.monotonic() + self._settings.shutdown_delay)
        server.stop()
        await asyncio.wait([serving], timeout=self._settings.shutdown_timeout)
        if not serving.done():
            log.warning("requests were cut off")

    def _server(self, address: str, port: int) -> EmbeddedGranian:
        return EmbeddedGranian(
            self._app,
            address=address,
            port=port,
            interface=Interfaces.RSGI,
            # asked to speak HTTP/2 too, it waits without end for the first byte of a connection
            http=HTTPModes.http1,
            websockets=False,
            # each is an open file
            backpressure=raise_file_limit(_MAX_CONNECTIONS + _OTHER_FILES) - _OTHER_FILES,
            http1_settings=HTTP1Settings(
                header_read_timeout=self._settings.idle_timeout * 1000, max_buffer_size=MAX_HEAD_BYTES
            ),
            log_dictconfig={"loggers": {"_granian": {"propagate": True}}},
            log_level=LogLevels.error,
        )

    async def _wait_until_it_listens(self, serving: asyncio.Task[None], address: str, port: int) -> None:
        """Return as soon as connections are taken; raises what granian raises if it can't listen."""
        while not serving.done():
            await self._turn()
            try:
                _, connection = await asyncio.open_connection(address, port)
            except OSError:
                continue
            connection.close()
            return
        await serving

    async def _turn(self) -> None:
        self._beat()
        await asyncio.sleep(_TURN_SECONDS)

    async def _turn_until(self, end: float) -> None:
        while time.monotonic() < end:
            await self._turn()
