"""How the clients of Kafka are set up and ended: shared by the source and the producer of dead letters."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import structlog
from kafka.cluster import collect_hosts
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, RequestTimedOutError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.util import ensure_valid_topic_name

from consumer_service.kafka_security import security_options, security_problems
from consumer_service.settings import KafkaSettings

CONNECT_TIMEOUT = 3.0
"""Seconds that one attempt to reach a broker for the first time may take: a stop has to wait for it."""

_LAST_PORT = 65_535

# A frame is as large as the largest record; the default of 100 MB is less than what brokers take by default.
_LARGEST_FRAME = 2**31 - 1

log = structlog.get_logger(__name__)


def problems_of(settings: KafkaSettings) -> list[str]:
    """Return one line for each setting that no client could be made with."""
    problems = []
    problems += [
        f"kafka.bootstrap_servers: expected HOST:PORT, got {server!r}"
        for server in settings.bootstrap_servers
        if not _is_address(server)
    ]
    if not settings.bootstrap_servers:
        problems.append("kafka.bootstrap_servers: expected at least one HOST:PORT")
    if not settings.group:
        problems.append("kafka.group: expected a name, got ''")
    problems += _topic_problems("kafka.topic", settings.topic)
    if settings.dead_letter_topic:
        problems += _topic_problems("kafka.dead_letter_topic", settings.dead_letter_topic)
    if settings.dead_letter_topic and settings.dead_letter_topic == settings.topic:
        problems.append(f"kafka.dead_letter_topic: expected another topic than kafka.topic, got {settings.topic!r}")
    return [*problems, *security_problems(settings)]


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        collect_hosts([server])
    except ValueError:
        return False
    is_host = bool(host) and (":" not in host or host.startswith("["))
    return is_host and port.isdecimal() and 0 < int(port) <= _LAST_PORT


def _topic_problems(name: str, topic: str) -> list[str]:
    try:
        ensure_valid_topic_name(topic)
    except (ValueError, TypeError):
        return [f"{name}: not a name of a topic: {topic!r}"]
    return []


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what consumer and producer are told alike: brokers, security, and how they wait for a broker."""
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "bootstrap_timeout_ms": round(CONNECT_TIMEOUT * 1000),
        # a broker that is back is noticed within a second
        "reconnect_backoff_max_ms": 1000,
        "receive_message_max_bytes": _LARGEST_FRAME,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
        **security_options(settings),
    }


class _ReadingToTheEnd:
    """A connection whose last bytes are read before its end.

    A broker says why it refuses a login and hangs up. kafka-python 3.0.12 throws away what it reads together with the
    end, so that it is chance whether anybody hears the reason.
    """

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received: bytes
        received, end = super()._sock_recv()  # type: ignore[misc]
        return (received, None) if received else (received, end)


class _Tcp(_ReadingToTheEnd, KafkaTCPTransport):  # type: ignore[misc]
    pass


class _Tls(_ReadingToTheEnd, KafkaSSLTransport):  # type: ignore[misc]
    pass


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of a client, with the reason for which the last of them failed, if none was made since."""

    def __init__(self, net: NetworkSelector, **options: Any) -> None:
        super().__init__(net, **options)
        self.failure: Exception | None = None
        self._watched: WeakSet[Any] = WeakSet()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)
        if connection not in self._watched:
            self._watched.add(connection)
            connection.init_future.add_callback(self._succeeded)
            connection.close_future.add_errback(self._failed)
        return connection

    async def _build_transport(self, node: Any, timeout_at: float) -> Any:
        """Return an open connection to a broker, at `timeout_at` of the monotonic clock at the latest.

        Without that limit a broker that is frozen, or speaks no TLS, is waited for in the handshake for ever
        (kafka-python 3.0.12).
        """
        sock = await create_connection(
            self._net, node.host, node.port, self.config["socket_options"], timeout_at=timeout_at
        )
        if not self.ssl_enabled:
            return _Tcp(self._net, sock, host=node.host)
        options = {name: value for name, value in self.config.items() if name.startswith("ssl_")}
        transport = _Tls(self._net, sock, host=node.host, **options)
        timer = self._net.call_at(timeout_at, lambda: _end(transport))
        try:
            await transport.handshake()
        except Exception as error:
            transport.close()
            is_late = time.monotonic() >= timeout_at
            raise KafkaConnectionError("no answer to the TLS handshake" if is_late else str(error)) from error
        finally:
            self._net.cancel(timer)
        return transport

    def _succeeded(self, made: object) -> None:
        self.failure = None

    def _failed(self, error: Exception) -> None:
        # the attempt that a deadline cuts off says less than those before it
        if self.failure is None or not isinstance(error, RequestTimedOutError | KafkaTimeoutError):
            self.failure = error


def _end(transport: KafkaTCPTransport) -> None:
    """End a connection so that whoever waits for it hears of it."""
    with suppress(OSError):
        # the method of SSLSocket would make a plain socket of it
        socket.socket.shutdown(transport._sock, socket.SHUT_RDWR)


class NetworkClient(KafkaNetClient):  # type: ignore[misc]
    """The part of a consumer or producer that speaks to brokers; it makes no topic by asking for it."""

    def __init__(self, **options: Any) -> None:
        net = NetworkSelector(**options)
        super().__init__(net, _Connections(net, **options), **options)
        # kafka-python 3.0.12 takes the option, but does not hand it on to the part that asks
        self.cluster.config["allow_auto_create_topics"] = options["allow_auto_create_topics"]

    @property
    def failure(self) -> str:
        """Why the last connection failed, in brackets, to be added to a text; empty if none did."""
        failure: Exception | None = self._manager.failure
        return f" ({_one_line(failure).removeprefix('KafkaConnectionError: ')})" if failure else ""


class NotConnected(Exception):
    """No broker could be reached; the text says which and why."""


CLIENT_FAULTS = (NotConnected, KafkaError, OSError, RuntimeError, ValueError)
"""What a client raises: its own errors, and others where a connection, a record or its IO thread broke."""


class Connecting:
    """Makes the network client of a consumer or producer while that is constructed, as its `kafka_client`.

    A context manager around the construction: if that fails, the network client is closed, which the constructor
    leaves open then. Raises NotConnected if no broker answered.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._made: list[NetworkClient] = []

    def __call__(self, **options: Any) -> NetworkClient:
        """Return a new network client."""
        self._made.append(NetworkClient(**options))
        return self.client

    @property
    def client(self) -> NetworkClient:
        """The network client that was made."""
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._made:
            return
        end_within(CONNECT_TIMEOUT, "connecting", self.client.close)
        if isinstance(error, KafkaTimeoutError):
            servers = ", ".join(self._settings.bootstrap_servers)
            raise NotConnected(f"can't connect to {servers}{self.client.failure}") from error


def describe(error: Exception, settings: KafkaSettings) -> str:
    """Return one line for a fault of a client."""
    if isinstance(error, NotConnected):
        return str(error)
    if isinstance(error, KafkaTimeoutError):
        return f"no answer in time from {', '.join(settings.bootstrap_servers)}"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if name in text else f"{name}: {text}"


def end_within(seconds: float, what: str, end: Callable[[], None]) -> None:
    """Call `end` and return when it is done, failed or took longer than `seconds`; never raises.

    It may take longer because a client looks up names while nothing else can happen in it.
    """

    def ended() -> None:
        try:
            end()
        except Exception as error:
            log.warning("Kafka client did not close cleanly", part=what, problem=f"{type(error).__name__}: {error}")

    thread = Thread(target=ended, name=f"close-{what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        log.warning("Kafka client did not close in time", part=what, waited_seconds=seconds)
