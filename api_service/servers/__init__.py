"""The HTTP servers that can answer for the application, each in one process; `workers` runs several of them."""

import contextlib
import resource
import socket
from collections.abc import Callable
from typing import Protocol

from api_service.app import Application
from api_service.metrics import ApiMetrics
from api_service.settings import ApiSettings
from libaggregator.admin import port_error
from libaggregator.settings import SettingsError

MAX_HEAD_BYTES = 262_144
"""Bytes that the request line and the headers of a request may have together."""

_OTHER_FILES = 128
_LEAST_CONNECTIONS = 16


class Server(Protocol):
    """Answers requests."""

    @property
    def is_listening(self) -> bool:
        """Whether connections are taken."""

    @property
    def stop_requested(self) -> bool:
        """Whether it was told to stop."""

    def request_stop(self) -> None:
        """Make `run` end, or not begin; may be called from a signal handler."""

    def run(self, when_listening: Callable[[], None]) -> None:
        """Answer requests; call `when_listening` once connections are taken.

        After `request_stop` wait `shutdown_delay`, listen no more, and finish what came. Answers tell clients to
        close their connections meanwhile. What is not done after `shutdown_timeout` is cut off. Raises SettingsError
        if somebody else listens on the port.
        """


OpenServer = Callable[[Application, ApiMetrics, ApiSettings, socket.socket, Callable[[], None]], Server]
"""Makes a server of an application, its metrics, settings, the socket that holds the port, and what its loop calls
each time that it comes round."""


def take_port(settings: ApiSettings) -> socket.socket:
    """Return a socket that holds `api.host` and `api.port` and does not listen yet.

    Raises SettingsError if the port can't be had.
    """
    try:
        return _bound_socket(settings.host, settings.port)
    except OSError as error:
        raise port_is_taken(settings, error) from None


def require_free(settings: ApiSettings, bound: socket.socket) -> None:
    """Raise SettingsError if somebody listens on the port that a socket holds: granian would share it with them."""
    try:
        bound.listen()
    except OSError as error:
        raise port_is_taken(settings, error) from None
    # back to a socket that does not listen, where the system can do that
    with contextlib.suppress(OSError):
        bound.shutdown(socket.SHUT_RD)


def port_is_taken(settings: ApiSettings, error: OSError) -> SettingsError:
    """Return the refusal of a port that somebody else listens on."""
    return port_error("api.port", settings.host, settings.port, error)


def connections_within_file_limit(connections: int, files_each: int = 1) -> int:
    """Return how many connections a server may hold so that files are left for everything else; at most `connections`.

    Each has up to `files_each` files. The number of files that this process may have open is raised, as far as it may.
    """
    files = _raise_file_limit(connections * files_each + _OTHER_FILES)
    return max(_LEAST_CONNECTIONS, min(connections, (files - _OTHER_FILES) // files_each))


def _raise_file_limit(wanted: int) -> int:
    """Raise the number of files that this process may have open to `wanted`, if it may; return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def server_of(settings: ApiSettings) -> OpenServer:
    """Return what makes the server that `api.server` names; only that one is imported."""
    if settings.server == "granian":
        from api_service.servers.granian import GranianServer  # noqa: PLC0415

        return GranianServer
    from api_service.servers.waitress import WaitressServer  # noqa: PLC0415

    return WaitressServer


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
