"""No statement is waited for without end: PostgreSQL's own time limit says nothing while its server is frozen."""

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ

from libaggregator.settings import DatabaseSettings

_CONNECTED = 0  # libpq's CONNECTION_OK
# the server is the one to end a statement that is merely slow, so that the connection stays usable
_SERVER_GOES_FIRST_SECONDS = 1.0


class NoAnswerError(psycopg2.OperationalError):
    """The server said nothing in time; the connection is closed."""


def limited_wait(settings: DatabaseSettings) -> Callable[[Any], None]:
    """Return what psycopg2 calls to wait for a server (`psycopg2.extensions.set_wait_callback`, for all threads).

    It raises NoAnswerError after `connect_timeout` for a connection, and soon after `read_timeout` for a statement.
    """

    def wait(connection: Any) -> None:
        connected = connection.info.status == _CONNECTED
        seconds = settings.read_timeout + _SERVER_GOES_FIRST_SECONDS if connected else settings.connect_timeout
        deadline = time.monotonic() + seconds
        while (state := connection.poll()) != POLL_OK:
            poller = select.poll()
            poller.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise NoAnswerError(f"no answer for {seconds:g} s")

    return wait
