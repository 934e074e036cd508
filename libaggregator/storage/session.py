"""The session in which `migrate` works: it waits without being in anybody's way, and can be stopped at any time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import psycopg2
from peewee import Database, PostgresqlDatabase

from libaggregator.storage.faults import DATABASE_ERRORS

_ADVISORY_LOCK = 0x6167_6772  # any number, the same in every version of this program
_LOOK_SECONDS = 0.5


class MigrationStopped(Exception):
    """A run ended before it was done because it was told to; another one continues it."""


def _tell_nobody(line: str) -> None:
    pass


class Session:
    """A database whose connection belongs to one thread, while another one may stop it.

    `tell` gets each line of progress.
    """

    def __init__(self, database: Database, tell: Callable[[str], None] = _tell_nobody) -> None:
        self.database = database
        self.tell = tell
        self._stop = Event()
        self._connection: Any = None

    def stop(self) -> None:
        """End the statement that runs, if any, and begin no other; to be called until the session has ended.

        A statement may begin between the two: only a second call ends that one.
        """
        self._stop.set()
        if self._connection is not None and isinstance(self.database, PostgresqlDatabase):
            with suppress(psycopg2.Error):
                self._connection.cancel()

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Connect for the block, in the thread that works; what it takes is not limited by the time-outs of settings.

        An error in the block that `stop` caused becomes MigrationStopped.
        """
        self._connection = self.database.connection()
        try:
            # tables have any size, and this holds whatever the role says
            self._limit("SET statement_timeout = 0", "SET lock_timeout = 0")
            yield
        except DATABASE_ERRORS as error:
            if self._stop.is_set():
                raise MigrationStopped from error
            raise
        finally:
            self._connection = None
            with suppress(*DATABASE_ERRORS):
                self._limit("RESET statement_timeout", "RESET lock_timeout")

    def _limit(self, *statements: str) -> None:
        if isinstance(self.database, PostgresqlDatabase):
            for statement in statements:
                self.database.execute_sql(statement)

    def execute(self, statement: str) -> Any:
        """Execute a statement in a transaction of its own; MigrationStopped if the session was told to stop."""
        if self._stop.is_set():
            raise MigrationStopped
        return self.database.execute_sql(statement)

    def pause(self, seconds: float) -> None:
        """Wait, without a transaction; MigrationStopped as soon as the session is told to stop."""
        if self._stop.wait(seconds):
            raise MigrationStopped

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep out every other run for the block: two at once wait for each other."""
        if not isinstance(self.database, PostgresqlDatabase):
            with self.database.atomic("IMMEDIATE"):
                yield
            return
        self._wait_for_others()
        try:
            yield
        finally:
            # a connection that broke has lost the lock
            with suppress(*DATABASE_ERRORS):
                self.database.execute_sql(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})")

    def _wait_for_others(self) -> None:
        """Ask for the lock again and again.

        A statement that waits for it would have a snapshot, which CREATE INDEX CONCURRENTLY of the run that has the
        lock would wait for in its turn.
        """
        told = False
        while not self.execute(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})").fetchone()[0]:
            if not told:
                self.tell("another run is at work, waiting for its end")
                told = True
            self.pause(_LOOK_SECONDS)
