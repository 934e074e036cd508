"""Nothing is waited for without end: PostgreSQL's own time limit says nothing while its server is frozen."""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from peewee import Database
from psycopg2.extensions import POLL_OK, POLL_READ

from libaggregator.settings import DatabaseSettings
from libaggregator.storage.faults import DATABASE_ERRORS

_CONNECTED = 0  # libpq's CONNECTION_OK
# the server is the one to end a statement that is merely slow, so that the connection stays usable
_SERVER_GOES_FIRST_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_PER_HOST = ("host", "hostaddr", "port")


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


def is_silence(error: BaseException) -> bool:
    """Whether an error of the database is that it said nothing in time."""
    # twice in an error of peewee, if a statement was to open the connection
    while cause := getattr(error, "orig", None):
        error = cause
    return isinstance(error, NoAnswerError)


def connect(database: Database) -> None:
    """Open the connection of this thread; a host that says nothing in time is put behind the others that there are.

    libpq itself goes on to the next host after `connect_timeout`, but only if it does the waiting.
    """
    hosts = max(len(_listed(database, name)) for name in _PER_HOST)
    for remaining in reversed(range(hosts)):
        try:
            database.connect()
        except DATABASE_ERRORS as error:
            if not (remaining and is_silence(error)):
                raise
            put_first_host_last(database)
        else:
            return


def put_first_host_last(database: Database) -> None:
    """Let the next connection begin with another host, if the URL has several."""
    for name in _PER_HOST:
        first, *others = _listed(database, name)
        if others:
            database.connect_params[name] = ",".join([*others, first])


def _listed(database: Database, name: str) -> list[str]:
    return str(database.connect_params.get(name, "")).split(",")


class Silence:
    """Keeps threads from waiting, each in turn and with all that is queued behind it, for a database that is silent.

    From the first call that got no answer to the next one that gets any, one thread at a time may ask.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasts = False
        self._is_probed = False
        self._probe_again = 0.0
        self.last = 0.0
        """When a call last ended without an answer (time.monotonic); what is connected for longer may be dead."""

    @contextmanager
    def respected(self) -> Iterator[None]:
        """Surround a call of the database; raises NoAnswerError, without a call, if others have to do."""
        probes = self._lasts and self._begin_probe()
        answered = True
        try:
            yield
        except DATABASE_ERRORS as error:
            answered = not is_silence(error)
            raise
        finally:
            if probes or not answered or self._lasts:
                self._end(probes, answered)

    def _begin_probe(self) -> bool:
        """Return whether this call is to find out if the silence lasts; False if it ended meanwhile."""
        with self._lock:
            if self._lasts and (self._is_probed or time.monotonic() < self._probe_again):
                raise NoAnswerError("no answer lately")
            self._is_probed = self._lasts
            return self._lasts

    def _end(self, probes: bool, answered: bool) -> None:
        with self._lock:
            self._lasts = not answered
            if not answered:
                self.last = time.monotonic()
            if probes:
                self._is_probed = False
                # a probe that fails holds a thread, so that with one thread no other request would be answered
                self._probe_again = time.monotonic() + _PAUSE_SECONDS
