"""What stands between a process and its database: a wire that falls silent, and one that is encrypted."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

_CHUNK = 65_536
# PostgreSQL's protocol: the length of the packet, then the code that asks for TLS
_ASKS_FOR_TLS = bytes.fromhex("00000008 04d2162f")


class Wire:
    """Takes connections on a free port of 127.0.0.1 and passes on what is said, to a port and back.

    With `tls` it speaks TLS to those who connect, as a PostgreSQL server with `ssl = on` does, and plainly to the port:
    the server that tests have can't speak it. It can be set anew at any time, for those who connect from then on.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self.tls = tls
        self._open = threading.Event()
        self._open.set()
        self._sockets: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Pass nothing on until the end of the block; connections are taken, and what was said comes late."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def forget(self) -> None:
        """Pass on nothing any more of the connections that there are, and tell nobody: as a firewall that forgot."""
        with self._lock:
            self._forgotten |= self._sockets
            self._sockets.clear()

    def close(self) -> None:
        """Take no more connections, and end those that there are, forgotten ones too."""
        self._open.set()
        self._listening.close()
        with self._lock:
            for opened in self._sockets | self._forgotten:
                _hang_up(opened)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self.accepted += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            secured = self._secured(client)
            server = self._connect()
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {secured, server}
        back = threading.Thread(target=self._pass_on, args=(server, secured), daemon=True)
        back.start()
        self._pass_on(secured, server)
        back.join()
        for each in (secured, server):
            each.close()

    def _connect(self) -> socket.socket:
        """Connect to what a client that has come shall speak to."""
        return socket.create_connection(("127.0.0.1", self._target))

    def _secured(self, client: socket.socket) -> socket.socket:
        if self.tls is None:
            return client
        if client.recv(len(_ASKS_FOR_TLS), socket.MSG_WAITALL) != _ASKS_FOR_TLS:
            raise ConnectionError("the client does not ask for TLS")
        client.sendall(b"S")
        return self.tls.wrap_socket(client, server_side=True)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._open.wait()
                if not self._is_known(source):
                    # what came is lost, and nobody is told
                    continue
                target.sendall(data)
        if self._is_known(source):
            _hang_up(target)

    def _is_known(self, end: socket.socket) -> bool:
        with self._lock:
            return end in self._sockets


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
