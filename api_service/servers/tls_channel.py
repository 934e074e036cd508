"""A connection of waitress that speaks TLS, which waitress does not by itself."""

import contextlib
import socket
import ssl
import time
from threading import RLock
from typing import Any

from api_service.servers.channel import Channel

# what a TLS record can hold: if as much is asked for, nothing of a record stays where `poll` does not see it
_RECORD_BYTES = 16_384


class TlsChannel(Channel):
    """A connection whose handshake is made by the loop, step by step, as bytes come: it holds up nobody else.

    A client that does not come to its end is closed like one that is silent. One that speaks plain HTTP, or has no
    version or cipher in common with us, is closed at once.
    """

    def __init__(self, server: Any, connection: ssl.SSLSocket, *arguments: Any, **options: Any) -> None:
        """Take a connection whose handshake has not begun."""
        self._is_secure = False
        self._wants_write = False
        # the loop reads while a thread may write, and one connection of OpenSSL is for one thread at a time
        self._turn = RLock()
        super().__init__(server, connection, *arguments, **options)
        # OpenSSL takes one record at a time: all that is offered beyond it would be copied for nothing
        self.sendbuf_len = _RECORD_BYTES

    def writable(self) -> bool:
        """Say whether the loop is to tell when something can be written."""
        return self._wants_write or bool(super().writable())

    def handle_read(self) -> None:
        """Go on with the handshake, or take what has come."""
        if not self._is_secure:
            self._shake_hands()
        if not self._is_secure:
            return
        try:
            with self._turn:
                data = self.socket.recv(_RECORD_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        if data:
            self.last_activity = time.time()
            self.received(data)
        else:
            self.handle_close()

    def handle_write(self) -> None:
        """Go on with the handshake, or send what there is."""
        if self._is_secure or self.will_close:
            super().handle_write()
        else:
            self._shake_hands()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what can be sent, and return how many bytes it was."""
        try:
            with self._turn:
                return int(super().send(data, do_close))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def handle_close(self) -> None:
        """Tell the client that this is the end (close_notify), and close the connection."""
        with self._turn, contextlib.suppress(OSError, ValueError):
            if self._is_secure and self.socket is not None:
                self.socket.unwrap()
        super().handle_close()

    def _shake_hands(self) -> None:
        try:
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wish:
            self._wants_write = isinstance(wish, ssl.SSLWantWriteError)
        except OSError:
            self.handle_close()
        else:
            self._wants_write = False
            self._is_secure = True


def secured(connection: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket | None:
    """Return a connection with TLS around it, None if the client has gone; the handshake is still to be made."""
    try:
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    except OSError:
        connection.close()
        return None
