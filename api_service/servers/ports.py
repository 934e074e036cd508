"""The sockets that servers listen on, and how one is closed without losing anybody who has connected."""

import contextlib
import select
import socket
import struct
import sys
from array import array

BACKLOG = 1024
"""Connections that the kernel holds until they are taken."""

_ARRIVAL_SECONDS = 0.5
_FIRST_REQUEST_SECONDS = 1.0
_IS_LINUX = sys.platform == "linux"
# from <asm-generic/socket.h>; the module `socket` lacks it
_SO_ATTACH_FILTER = 26
# classic BPF, as (code, jump if true, jump if false, value), on a packet that begins with its TCP header:
# with the flag SYN it is dropped, else taken as a whole
_NO_SYN = (
    (0x30, 0, 0, 13),
    (0x45, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def arrival_seconds(shutdown_timeout: float) -> float:
    """Return for how long handshakes of the kernel may go on once nobody new is let in: some round trips."""
    return min(_ARRIVAL_SECONDS, shutdown_timeout / 4)


def first_request_seconds(shutdown_timeout: float) -> float:
    """Return for how long connections without work are kept once the port is closed.

    A request that was sent before its client could know better counts as accepted.
    """
    return min(_FIRST_REQUEST_SECONDS, shutdown_timeout / 2)


def socket_to_listen_on(bound: socket.socket) -> socket.socket:
    """Return a socket for a server on the address that `bound` holds; raises OSError if somebody else listens there.

    On Linux it is one of its own: the kernel spreads new connections evenly over all that there are. Elsewhere it is
    `bound` itself once more, which several processes can share.
    """
    own = _own_socket(bound) if _IS_LINUX else bound.dup()
    own.setblocking(False)
    # connections inherit it
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return own


def let_nobody_in(listening: socket.socket) -> bool:
    """Make a socket ignore who wants to connect from here on; False if the system can't do that.

    A listening socket that is closed resets the connections that nobody has taken yet, and under load there always
    is another one between the last look and the close. So first its queue is made to run dry: handshakes that have
    begun are finished, new ones get no answer, and who tries again is refused once the socket is closed.
    """
    if not _IS_LINUX:
        return False
    code = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN))
    program = struct.pack("HP", len(_NO_SYN), code.buffer_info()[0])
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False


def has_input(connection: socket.socket) -> bool:
    """Say whether a socket has something to be read, or a connection to be taken."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))


def _own_socket(bound: socket.socket) -> socket.socket:
    own = socket.socket(bound.family, bound.type, bound.proto)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(bound.getsockname())
    except OSError:
        own.close()
        raise
    return own
