"""Whose fault an error of the database is: decided by SQLSTATE, or by the code of SQLite."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import peewee
import psycopg2
import pytest

from libaggregator.storage.faults import (
    DATABASE_ERRORS,
    Fault,
    describe,
    fault_of,
    is_cancelled,
    is_lock_held,
    is_refused_for_good,
    sqlstate_of,
)


def postgresql_error(
    state: str | None, text: str = "text of the server", base: type[psycopg2.Error] = psycopg2.OperationalError
) -> psycopg2.Error:
    """Return an error as the driver raises it, which sets `pgcode` where Python can't."""
    return type("Raised", (base,), {"pgcode": state})(text)


def wrapped(error: Exception) -> peewee.PeeweeException:
    """Return an error as it comes through peewee, which keeps the driver's one."""
    wrapper = peewee.OperationalError(str(error))
    wrapper.orig = error
    return wrapper


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("22001", Fault.VALUES),
        ("22003", Fault.VALUES),
        ("22008", Fault.VALUES),
        ("22021", Fault.VALUES),
        ("22P05", Fault.VALUES),
        ("23503", Fault.VALUES),
        ("23514", Fault.VALUES),
        ("23000", Fault.VALUES),
        ("54000", Fault.VALUES),
        ("54001", Fault.VALUES),
        # two consumers on one new cluster cause it
        ("23505", Fault.OUTAGE),
        ("40001", Fault.OUTAGE),
        ("40P01", Fault.OUTAGE),
        ("08006", Fault.OUTAGE),
        ("53100", Fault.OUTAGE),
        ("53300", Fault.OUTAGE),
        ("55P03", Fault.OUTAGE),
        ("57014", Fault.OUTAGE),
        ("57P01", Fault.OUTAGE),
        ("57P03", Fault.OUTAGE),
        ("58030", Fault.OUTAGE),
        # no message makes a NULL where our schema has none
        ("23502", Fault.STATEMENT),
        # the connection broke
        (None, Fault.OUTAGE),
        ("42P01", Fault.STATEMENT),
        ("42501", Fault.STATEMENT),
        ("42703", Fault.STATEMENT),
        ("25006", Fault.STATEMENT),
        ("0A000", Fault.STATEMENT),
        ("XX000", Fault.STATEMENT),
    ],
)
@pytest.mark.parametrize("base", [psycopg2.OperationalError, psycopg2.DataError, psycopg2.IntegrityError])
def test_the_sqlstate_alone_decides_whatever_the_class_of_the_exception(
    state: str | None, fault: Fault, base: type[psycopg2.Error]
) -> None:
    error = postgresql_error(state, base=base)
    assert fault_of(error) is fault
    assert fault_of(wrapped(error)) is fault
    assert sqlstate_of(error) == sqlstate_of(wrapped(error)) == state


def test_a_broken_connection_has_no_sqlstate_and_is_an_outage() -> None:
    for error in (psycopg2.OperationalError("server closed the connection"), psycopg2.InterfaceError("closed")):
        assert fault_of(error) is Fault.OUTAGE
        assert sqlstate_of(error) is None
    assert fault_of(peewee.InterfaceError("Error, database connection not opened.")) is Fault.OUTAGE


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "faults.db", timeout=0, isolation_level=None)) as opened:
        opened.execute(
            "CREATE TABLE t (k INTEGER PRIMARY KEY, u TEXT UNIQUE, n TEXT NOT NULL DEFAULT '' CHECK (n <> 'x'))"
        )
        opened.execute("INSERT INTO t (k, u) VALUES (1, 'one')")
        yield opened


def error_of(action: Callable[[], object]) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as raised:
        action()
    return raised.value


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        pytest.param("INSERT INTO t (k, u) VALUES (2, 'one')", Fault.OUTAGE, id="unique"),
        pytest.param("INSERT INTO t (k, u) VALUES (1, 'two')", Fault.OUTAGE, id="primary key"),
        pytest.param("INSERT INTO t (k, n) VALUES (2, NULL)", Fault.STATEMENT, id="not null"),
        pytest.param("INSERT INTO t (k, n) VALUES (2, 'x')", Fault.VALUES, id="check"),
        pytest.param("INSERT INTO t (k) VALUES ('text')", Fault.VALUES, id="mismatch"),
        pytest.param("SELECT * FROM missing", Fault.STATEMENT, id="no such table"),
        pytest.param("SELEC", Fault.STATEMENT, id="syntax"),
        pytest.param("SELECT ?", Fault.STATEMENT, id="parameters"),
    ],
)
def test_on_sqlite_the_code_of_the_error_decides(connection: sqlite3.Connection, statement: str, fault: Fault) -> None:
    error = error_of(lambda: connection.execute(statement))
    assert fault_of(error) is fault
    assert fault_of(wrapped(error)) is fault
    assert sqlstate_of(error) is None


def test_on_sqlite_a_value_too_large_is_the_fault_of_the_values(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    assert fault_of(error_of(lambda: connection.execute("SELECT ?", ["x" * 2000]))) is Fault.VALUES


def test_on_sqlite_a_file_that_is_locked_or_gone_or_broken_is_an_outage(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    with closing(sqlite3.connect(tmp_path / "faults.db", timeout=0)) as other:
        assert fault_of(error_of(lambda: other.execute("SELECT * FROM t"))) is Fault.OUTAGE
    assert fault_of(error_of(lambda: sqlite3.connect(tmp_path / "no folder" / "x.db"))) is Fault.OUTAGE
    (tmp_path / "broken.db").write_text("not a database, " * 100)
    with closing(sqlite3.connect(tmp_path / "broken.db")) as broken:
        assert fault_of(error_of(lambda: broken.execute("SELECT 1 FROM t"))) is Fault.OUTAGE


@pytest.mark.parametrize(
    "error",
    [
        peewee.OperationalError(),
        peewee.IntegrityError(),
        peewee.DataError(),
        peewee.ProgrammingError(),
        peewee.InternalError(),
        peewee.InterfaceError(),
        psycopg2.OperationalError(),
        psycopg2.InterfaceError(),
        psycopg2.DataError(),
        sqlite3.OperationalError(),
        sqlite3.DatabaseError(),
        sqlite3.IntegrityError(),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_everything_that_the_drivers_raise_is_an_error_of_the_database(error: Exception) -> None:
    assert isinstance(error, DATABASE_ERRORS)


@pytest.mark.parametrize("error", [OSError(), ValueError(), KeyError(), RuntimeError()])
def test_an_error_of_the_program_is_none(error: Exception) -> None:
    assert not isinstance(error, DATABASE_ERRORS)


def test_a_description_is_one_line_without_statement_and_values() -> None:
    text = 'index row size 3040 exceeds maximum 2704\nDETAIL:  values\nLINE 1: INSERT INTO rule_hit VALUES ("secret")'
    assert describe(wrapped(postgresql_error("54000", text))) == "index row size 3040 exceeds maximum 2704"


@pytest.mark.parametrize("wrap", [wrapped, lambda error: error], ids=["by peewee", "by the driver"])
def test_a_description_of_a_lost_connection_says_what_was_lost_and_not_what_that_kept_from_being_undone(
    wrap: Callable[[Exception], Exception],
) -> None:
    with pytest.raises(psycopg2.InterfaceError) as raised:  # noqa: PT012 - how it comes about
        try:
            raise wrap(psycopg2.OperationalError("server closed the connection"))
        finally:
            raise psycopg2.InterfaceError("connection already closed")
    assert describe(wrap(raised.value)) == "server closed the connection"


def test_a_description_is_never_empty() -> None:
    assert describe(psycopg2.OperationalError()) == "OperationalError"
    assert describe(psycopg2.OperationalError(" \n ")) == "OperationalError"


@pytest.mark.parametrize(
    ("text", "for_good"),
    [
        ('connection to server at "db", port 5432 failed: FATAL:  database "x" does not exist', True),
        ('connection to server at "db", port 5432 failed: FATAL:  role "x" does not exist', True),
        ('FATAL:  password authentication failed for user "x"', True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption', True),
        ("fe_sendauth: no password supplied", True),
        ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", False),
        ('could not translate host name "db" to address: Name or service not known', False),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("timeout expired", False),
        ('relation "x" does not exist', False),
    ],
)
def test_what_the_url_must_say_otherwise_is_told_from_what_will_pass(text: str, for_good: bool) -> None:
    assert is_refused_for_good(psycopg2.OperationalError(text)) is for_good
    assert is_refused_for_good(wrapped(psycopg2.OperationalError(text))) is for_good


def test_a_lock_that_somebody_holds_and_a_statement_that_took_too_long_are_told_from_other_outages(
    tmp_path: Path,
) -> None:
    assert is_lock_held(wrapped(postgresql_error("55P03")))
    assert is_cancelled(wrapped(postgresql_error("57014")))
    assert not is_lock_held(postgresql_error("57014"))
    assert not is_cancelled(postgresql_error("55P03"))
    with (
        closing(sqlite3.connect(tmp_path / "x.db", timeout=0)) as holder,
        closing(sqlite3.connect(tmp_path / "x.db", timeout=0)) as other,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as raised:
            other.execute("BEGIN IMMEDIATE")
        assert is_lock_held(wrapped(raised.value))
    assert not is_lock_held(sqlite3.OperationalError("no such table"))
