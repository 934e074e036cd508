"""Free ports of this machine."""

import contextlib
import socket
from random import SystemRandom

_RANGE = range(15_000, 32_000)
"""Below what systems give out by themselves: one of those may be gone the next moment, to any client."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on at the moment."""
    while True:
        port = SystemRandom().choice(_RANGE)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
