"""What systemd is to a process that it started: the socket on which it is told how the process is."""

import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")


class ServiceManager:
    """Takes what processes tell at `address`, and from which of them it came."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.senders: set[int] = set()
        self._messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    @property
    def messages(self) -> list[str]:
        """Everything that was told so far."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return list(self._messages)
            self._messages.append(data.decode())
            self.senders |= {_CREDENTIALS.unpack(content)[0] for _, _, content in ancillary}

    def close(self) -> None:
        """Take nothing any more."""
        self._socket.close()


@contextmanager
def service_manager() -> Iterator[ServiceManager]:
    """Yield one; the path of its socket is short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="notify-") as folder:
        manager = ServiceManager(str(Path(folder, "socket")))
        try:
            yield manager
        finally:
            manager.close()
