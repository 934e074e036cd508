"""Statements of a server that says nothing are given up, COPY among them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from threading import Event, Thread, Timer
from typing import Any

import peewee
import pytest
from peewee import Database

from consumer_service.statement_limit import NoAnswer, StatementLimit
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, describe, fault_of
from tests.support.databases import open_database
from tests.support.postgresql import PostgresqlServer


class Watched:
    """A database whose statements are watched by a thread, which the test starts."""

    def __init__(self, url: str, timeout: float) -> None:
        self.answers = 0
        self.limit = StatementLimit(timeout, self._answered)
        self.database: Database = open_database(url)
        self.limit.watch(self.database)
        self._stop = Event()
        self._thread = Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.database.close()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.limit.look()

    def _answered(self) -> None:
        self.answers += 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer_service.statement_limit._SERVER_GOES_FIRST_SECONDS", 0.2)


@pytest.fixture
def watched(own_postgresql: PostgresqlServer, impatient: None) -> Iterator[Watched]:
    watched = Watched(own_postgresql.create_database(), timeout=0.3)
    watched.database.execute_sql("CREATE TABLE numbers (number integer)")
    yield watched
    watched.close()


def select(database: Database) -> Any:
    return database.execute_sql("SELECT 1").fetchone()


def copy(database: Database) -> Any:
    return database.cursor().copy_expert("COPY numbers FROM STDIN", BytesIO(b"1\n"))


def commit(database: Database) -> Any:
    with database.atomic():
        pass


@contextmanager
def frozen_for_a_while(server: PostgresqlServer) -> Iterator[None]:
    """Freeze a server, but not for ever: without a limit the test would hang, and nothing could end it."""
    with ExitStack() as freeze:
        freeze.enter_context(server.frozen())
        thaw = Timer(20, freeze.close)
        thaw.start()
        try:
            yield
        finally:
            thaw.cancel()


@pytest.mark.parametrize("statement", [select, copy, commit])
def test_one_that_a_frozen_server_does_not_answer_is_given_up_as_an_outage(
    watched: Watched, own_postgresql: PostgresqlServer, statement: Callable[[Database], Any]
) -> None:
    with frozen_for_a_while(own_postgresql):
        with pytest.raises(DATABASE_ERRORS) as caught:
            statement(watched.database)
        assert fault_of(caught.value) is Fault.OUTAGE
        assert describe(caught.value) == "no answer for 0.5 s"
        watched.database.close()
    assert select(watched.database) == (1,)


def test_a_connection_that_was_given_up_is_no_use_for_the_next_statement(
    watched: Watched, own_postgresql: PostgresqlServer
) -> None:
    with frozen_for_a_while(own_postgresql):
        with pytest.raises(NoAnswer):
            watched.database.cursor().execute("SELECT 1")
        with pytest.raises(DATABASE_ERRORS):
            select(watched.database)


def test_a_statement_that_fails_has_the_error_of_the_server(watched: Watched) -> None:
    with pytest.raises(peewee.ProgrammingError, match="nothing"):
        watched.database.execute_sql("SELECT * FROM nothing")


def test_a_connection_that_the_server_ended_is_an_outage_whenever_it_is_used(watched: Watched) -> None:
    with pytest.raises(DATABASE_ERRORS):
        watched.database.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DATABASE_ERRORS) as caught:
        select(watched.database)
    assert fault_of(caught.value) is Fault.OUTAGE


def test_each_answer_is_told_whether_or_not_it_is_an_error(watched: Watched) -> None:
    before = watched.answers
    select(watched.database)
    copy(watched.database)
    with pytest.raises(peewee.ProgrammingError):
        watched.database.execute_sql("SELECT * FROM nothing")
    assert watched.answers == before + 3


def test_a_long_statement_within_the_limit_is_left_alone(postgresql_url: str, impatient: None) -> None:
    watched = Watched(postgresql_url, timeout=20)
    watched.database.execute_sql("SELECT pg_sleep(0.5)")
    watched.close()


def test_without_a_timeout_there_is_no_limit(postgresql_url: str, impatient: None) -> None:
    watched = Watched(postgresql_url, timeout=0)
    watched.database.execute_sql("SELECT pg_sleep(0.5)")
    assert watched.limit.seconds == float("inf")
    watched.close()


def test_sqlite_goes_without(sqlite_url: str) -> None:
    watched = Watched(sqlite_url, timeout=1)
    assert select(watched.database) == (1,)
    watched.close()
