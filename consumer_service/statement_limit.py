"""No statement is waited for without end: PostgreSQL's own time limit says nothing while its server is frozen.

psycopg2's wait callback, which would do for it, makes COPY impossible. So another thread looks at the statement that
runs, and shuts its connection down if that took too long: the driver then returns with an error.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

import psycopg2
from peewee import Database, PostgresqlDatabase
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class, whatever its name

_SERVER_GOES_FIRST_SECONDS = 5.0
_LOOK_SECONDS = 1.0


class NoAnswer(psycopg2.OperationalError):
    """The server said nothing in time; the connection is of no use any more."""


@dataclass(slots=True)
class _Running:
    since: float
    line: int
    """The connection's socket, as a descriptor of its own: the driver may close its one at any moment."""
    is_cut: bool = False


class StatementLimit:
    """Ends statements of one thread that take longer than `statement_timeout` and what the server needs to say so.

    A `statement_timeout` of 0 is no limit. `answered`, if given, is called after each statement.
    """

    def __init__(self, statement_timeout: float, answered: Callable[[], None] | None = None) -> None:
        self.seconds = statement_timeout + _SERVER_GOES_FIRST_SECONDS if statement_timeout else float("inf")
        self._answered = answered
        self._lock = Lock()
        self._running: _Running | None = None

    def watch(self, database: Database) -> None:
        """Watch all statements of a database that is not connected yet; those of SQLite need it not."""
        if isinstance(database, PostgresqlDatabase):
            database.connect_params["cursor_factory"] = type("WatchedCursor", (_WatchedCursor,), {"limit": self})

    @contextmanager
    def watching(self, database: Database) -> Iterator[None]:
        """Watch a database that is not connected yet for the block, and have a thread look, where no other one does."""
        self.watch(database)
        over = Event()
        looker = Thread(target=self._look_until, args=[over], name="statement limit", daemon=True)
        looker.start()
        try:
            yield
        finally:
            over.set()
            looker.join()

    def look(self) -> None:
        """End the statement that runs if it took too long; to be called every second, from another thread."""
        with self._lock:
            running = self._running
            if running is None or running.is_cut or time.monotonic() - running.since <= self.seconds:
                return
            running.is_cut = True
            # the other end may have gone in this very moment
            with socket.socket(fileno=os.dup(running.line)) as line, suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _look_until(self, over: Event) -> None:
        while not over.wait(_LOOK_SECONDS):
            self.look()

    @contextmanager
    def statement(self, connection: Any) -> Iterator[None]:
        """Watch what the block does on a connection; raises NoAnswer if that was ended."""
        running = _Running(time.monotonic(), os.dup(connection.fileno()))
        self._running = running
        try:
            yield
        except psycopg2.Error as error:
            if running.is_cut:
                raise NoAnswer(f"no answer for {self.seconds:g} s") from error
            raise
        finally:
            with self._lock:
                self._running = None
                os.close(running.line)
            if self._answered:
                self._answered()


class _WatchedCursor(Cursor):
    limit: StatementLimit

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
        with self.limit.statement(self.connection):
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self.limit.statement(self.connection):
            super().copy_expert(sql, file, size)
