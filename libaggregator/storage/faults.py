"""Whose fault an error of the database is (`docs/messages.md`, section 5; `docs/rest.md`, section 1.8).

Decided by SQLSTATE, never by the class of the exception: psycopg2 raises 54000 as OperationalError. SQLite has
no SQLSTATE; there the class of the exception says the same.
"""

import enum
import re
import sqlite3

import peewee
import psycopg2

DATABASE_ERRORS = (peewee.DatabaseError, peewee.InterfaceError, psycopg2.Error, sqlite3.Error)
"""Everything that a call of the database can raise for a reason outside this program."""


class Fault(enum.Enum):
    """What has to change before the same call can succeed."""

    VALUES = "the values: the database refuses to store them"
    OUTAGE = "nothing: the database is away, busy or in conflict, and trying again is right"
    STATEMENT = "the program: a statement is wrong for this schema or this role"


_VALUES_CLASSES = ("22", "23", "54")
_UNIQUE_VIOLATION = "23505"
_NOT_NULL_VIOLATION = "23502"
_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
_CONFLICTS = ("40001", "40P01", _UNIQUE_VIOLATION)
_REFUSALS = (
    r'(database|role) ".*" does not exist|authentication failed|no pg_hba.conf entry|no password supplied'
    r"|invalid \S+ value"
)
_OUTAGE_CLASSES = ("08", "40", "53", "55", "57", "58")


def fault_of(error: BaseException) -> Fault:
    """Return whose fault an error of `DATABASE_ERRORS` is."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _fault_on_sqlite(cause)
    state = sqlstate_of(cause)
    if state == _UNIQUE_VIOLATION or state is None or state.startswith(_OUTAGE_CLASSES):
        return Fault.OUTAGE
    # no message gives a column of ours a NULL that our schema does not allow: somebody changed the table
    if state == _NOT_NULL_VIOLATION or not state.startswith(_VALUES_CLASSES):
        return Fault.STATEMENT
    return Fault.VALUES


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error, None if the connection broke or the driver has none."""
    return getattr(_driver_error(error), "pgcode", None)


def is_conflict(error: BaseException) -> bool:
    """Whether two sessions were in each other's way: nothing is wrong, and doing it again at once is right."""
    return sqlstate_of(error) in _CONFLICTS


def is_cancelled(error: BaseException) -> bool:
    """Whether the database ended the statement for the time that it took."""
    return sqlstate_of(error) == _QUERY_CANCELED


def is_lock_held(error: BaseException) -> bool:
    """Whether somebody else kept a lock for longer than this session waits: doing it again a bit later is right."""
    code = getattr(_driver_error(error), "sqlite_errorcode", None)
    return sqlstate_of(error) == _LOCK_NOT_AVAILABLE or code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT)


def is_want_of_right(error: BaseException) -> bool:
    """Whether the role may not do what the statement demands: whoever runs the database has to grant it."""
    return sqlstate_of(error) == _INSUFFICIENT_PRIVILEGE


def describe(error: BaseException) -> str:
    """Return the first line of what the driver says, which holds no SQL and no values.

    Of a connection that was lost in a transaction it is how that went, not that it could not be undone.
    """
    cause = _driver_error(error)
    while isinstance(cause, psycopg2.InterfaceError) and isinstance(cause.__context__, DATABASE_ERRORS):
        cause = _driver_error(cause.__context__)
    diagnosis = getattr(cause, "diag", None)
    text = (diagnosis and diagnosis.message_primary) or str(cause).strip() or type(cause).__name__
    return str(text).splitlines()[0]


def is_refused_for_good(error: BaseException) -> bool:
    """Whether waiting can't help at the start: unknown database or role, wrong password, no right to read, no database.

    A failed connection has no SQLSTATE in psycopg2, so the words of the server decide. In another language than
    English it counts as an outage, which is waited out.
    """
    cause = _driver_error(error)
    if fault_of(cause) is Fault.STATEMENT or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
        return True
    return re.search(_REFUSALS, str(cause)) is not None


def _driver_error(error: BaseException) -> BaseException:
    """Peewee keeps the driver's exception in its own."""
    return getattr(error, "orig", None) or error


def _fault_on_sqlite(error: sqlite3.Error) -> Fault:
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        return Fault.OUTAGE
    if isinstance(error, sqlite3.ProgrammingError) or code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_NOTNULL):
        return Fault.STATEMENT
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
        return Fault.VALUES
    return Fault.OUTAGE
