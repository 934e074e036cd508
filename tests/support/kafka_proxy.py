"""A connection to a broker that can be cut, or held at requests of one kind (https://kafka.apache.org/protocol)."""

import contextlib
import socket
from collections.abc import Iterator
from threading import Event, Lock, Thread

from examples.demo.ports import free_port
from tests.support.kafka import Listener

PRODUCE = 0
OFFSET_COMMIT = 8
"""Numbers of requests in the protocol."""


def proxied_listener() -> Listener:
    """Return a listener of a broker whose clients are told to connect to a port that a proxy can have."""
    return Listener("proxied", "PLAINTEXT", proxy_port=free_port())


class KafkaProxy:
    """Listens for the clients of a listener that `proxied_listener` returned, and hands on what it is sent."""

    def __init__(self, listener: Listener) -> None:
        self.bootstrap = listener.advertised
        self.held_requests = 0
        self._broker_port = listener.port
        self._held: int | None = None
        self._go_on = Event()
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", listener.proxy_port or 0))
        self._is_open = True
        Thread(target=self._accept, name="proxy", daemon=True).start()

    @contextlib.contextmanager
    def holding(self, kind: int) -> Iterator[None]:
        """Swallow requests of a kind, and whatever follows them on their connection, until the end of the block.

        Then these connections are cut.
        """
        self.held_requests = 0
        self._go_on.clear()
        self._held = kind
        try:
            yield
        finally:
            self._held = None
            self.cut()
            self._go_on.set()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            for found in self._sockets:
                with contextlib.suppress(OSError):
                    found.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()

    def close(self) -> None:
        """Cut all connections and listen no more."""
        self._is_open = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._go_on.set()
        self.cut()

    def _accept(self) -> None:
        while self._is_open:
            try:
                client, _ = self._socket.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker_port), timeout=5)
            except OSError:
                continue
            broker.settimeout(None)
            with self._lock:
                self._sockets += [client, broker]
            for work in (self._requests, self._answers):
                Thread(target=work, args=(client, broker), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile("rb") as stream:
            while size := stream.read(4):
                request = stream.read(int.from_bytes(size))
                if self._held is not None and int.from_bytes(request[:2]) == self._held:
                    self.held_requests += 1
                    self._go_on.wait()
                    break
                broker.sendall(size + request)
        _end(client, broker)

    def _answers(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answer := broker.recv(65536):
                client.sendall(answer)
        _end(client, broker)


def _end(*sockets: socket.socket) -> None:
    for found in sockets:
        with contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
        found.close()
