"""How the API asks the database: one statement a question, in a read-only session, one connection a thread."""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from peewee import Database, SqliteDatabase
from prometheus_client import Gauge

from api_service.deadline import Silence, connect, is_silence
from api_service.metrics import ApiMetrics
from api_service.times import without_zeros
from libaggregator.storage.catalogue import is_to_be_rewritten
from libaggregator.storage.connections import is_of_lost_file
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, describe, fault_of, sqlstate_of

Rows = list[tuple[Any, ...]]
Value = int | str | datetime | Sequence[str] | None

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_PARAMETER = re.compile(r":(\w+)")
_ANY_OF = re.compile(r"= ANY\((:\w+)\)")
# provider `b` has nothing but bytewise locales; before version 15 there was only libc, `c`
_DATABASE_IS_BYTEWISE = r"""
    SELECT CASE COALESCE(to_jsonb(database) ->> 'datlocprovider', 'c')
        WHEN 'b' THEN true
        WHEN 'c' THEN datcollate ~ '^(C|POSIX)(\.|$)'
        ELSE false
    END
    FROM pg_database AS database
    WHERE datname = current_database()
"""
# 26000: the prepared statement does not exist; 42P05: it exists already; 0A000: the plan does not fit any more
_PREPARED_STATES = ("26000", "42P05", "0A000")
_BYTEWISE = ' COLLATE "C"'
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class OutageError(Exception):
    """The database did not answer for a reason that goes away; the text says which, without SQL or values."""


@dataclass(frozen=True, eq=False)
class Statement:
    """One question: its name, its SQL with parameters like `:org_id`, and their types on PostgreSQL by name.

    The SQL runs on both engines. A list is one parameter, `= ANY(:clusters)`, which is translated for SQLite.
    Where the order of texts matters, `COLLATE "C"` makes it that of their bytes.
    """

    name: str
    sql: str
    types: Mapping[str, str]

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the parameters, in the order in which PostgreSQL numbers them."""
        return list(dict.fromkeys(_PARAMETER.findall(self.sql)))

    @cached_property
    def names_collation(self) -> bool:
        """Whether the order of texts matters."""
        return _BYTEWISE in self.sql

    @cached_property
    def without_collation(self) -> "Statement":
        """The statement for a database whose own order is that of bytes.

        It means the same there, and can use an index, which has the order of the database and never a named one.
        """
        return replace(self, sql=self.sql.replace(_BYTEWISE, ""))

    @cached_property
    def for_sqlite(self) -> str:
        """The statement with SQLite's own named parameters; a list is the text of a JSON array."""
        return _ANY_OF.sub(r"IN (SELECT value FROM json_each(\1))", self.without_collation.sql)

    @cached_property
    def for_postgresql(self) -> str:
        """The statement with psycopg2's named parameters."""
        return _PARAMETER.sub(self._typed, self.sql)

    @cached_property
    def preparation(self) -> str:
        """The command that prepares it on PostgreSQL."""
        types = f" ({', '.join(self.types[name] for name in self.parameters)})" if self.parameters else ""
        numbers = {name: f"${number}" for number, name in enumerate(self.parameters, 1)}
        return f"PREPARE {self.name}{types} AS {_PARAMETER.sub(lambda match: numbers[match[1]], self.sql)}"

    @cached_property
    def execution(self) -> str:
        """The command that runs it when it is prepared, with psycopg2's named parameters."""
        values = f" ({', '.join(f'%({name})s' for name in self.parameters)})" if self.parameters else ""
        return f"EXECUTE {self.name}{values}"

    def _typed(self, match: re.Match[str]) -> str:
        return f"CAST(%({match[1]})s AS {self.types[match[1]]})"


class Reader:
    """Runs statements; can be used by any number of threads, each of which gets a connection of its own.

    `open_database` returns a database that is not connected yet, `prepare` is whether statements are prepared on
    PostgreSQL. `metrics` count the connections, and the statements that failed.
    """

    def __init__(self, open_database: Callable[[], Database], prepare: bool, metrics: ApiMetrics) -> None:
        self._open_database = open_database
        self._prepare = prepare
        self._metrics = metrics
        self._local = threading.local()
        self._silence = Silence()

    def read(self, statement: Statement, **values: Value) -> Rows:
        """Return all rows of a statement.

        A connection that turns out to be broken is opened anew, once. Raises OutageError if the database is away,
        busy or in conflict, and the driver's error for a fault of the statement. While the database says nothing, one
        thread at a time waits for it.
        """
        session = self._session()
        try:
            with self._silence.respected(), self._metrics.database_connections_in_use.track_inprogress():
                session.close_if_dead(self._silence.last)
                return self._run(session, statement, values)
        except DATABASE_ERRORS as error:
            session.close_if_broken(error)
            fault = fault_of(error)
            self._metrics.count_fault(fault)
            if fault is Fault.OUTAGE:
                raise OutageError(describe(error)) from error
            raise

    def _run(self, session: "_Session", statement: Statement, values: Mapping[str, Value]) -> Rows:
        was_open = session.is_open
        try:
            return session.run(statement, values, self._prepare)
        except DATABASE_ERRORS as error:
            worth_it = (was_open and not is_silence(error)) or sqlstate_of(error) in _PREPARED_STATES
            if not (session.close_if_broken(error) and worth_it):
                raise
            # not prepared: whatever stands between us and the server may not keep what is prepared
            return session.run(statement, values, prepare=False)

    def _session(self) -> "_Session":
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            # a database each: one lock of peewee's is held while a connection is made, for all threads of a database
            session = self._local.session = _Session(self._open_database(), self._metrics.database_connections)
        return session


class _Session:
    """The connection of one thread, and what is prepared on it; `connections` is the number of open ones."""

    def __init__(self, database: Database, connections: Gauge) -> None:
        self._database = database
        self._connections = connections
        self._on_sqlite = isinstance(database, SqliteDatabase)
        self._prepared: set[str] = set()
        self._is_bytewise: bool | None = None
        self._may_prepare: bool | None = None
        self._connected = 0.0

    @property
    def is_open(self) -> bool:
        return not self._database.is_closed()

    def run(self, statement: Statement, values: Mapping[str, Value], prepare: bool) -> Rows:
        if not self.is_open:
            connect(self._database)
            self._connected = time.monotonic()
            self._connections.inc()
        if self._on_sqlite:
            return self._rows(statement.for_sqlite, {name: _for_sqlite(value) for name, value in values.items()})
        if statement.names_collation and self._compares_bytes():
            statement = statement.without_collation
        bound = {name: _for_postgresql(value) for name, value in values.items()}
        if not (prepare and self._reads_right_when_prepared()):
            return self._rows(statement.for_postgresql, bound)
        if statement.name not in self._prepared:
            self._database.execute_sql(statement.preparation)
            self._prepared.add(statement.name)
        return self._rows(statement.execution, bound)

    def close_if_broken(self, error: BaseException) -> bool:
        """Close the connection if no statement can succeed on it after this error; return whether it was so."""
        broken = self.is_open and self._is_broken(error)
        if broken:
            self._close()
        return broken

    def close_if_dead(self, silence: float) -> None:
        """Close a connection that is older than a silence, or is of an SQLite file that is not there any more."""
        if self.is_open and (self._connected < silence or is_of_lost_file(self._database)):
            self._close()

    def _close(self) -> None:
        self._database.close()
        self._connections.dec()
        self._prepared.clear()
        self._is_bytewise = None
        self._may_prepare = None

    def _is_broken(self, error: BaseException) -> bool:
        if self._on_sqlite:
            return fault_of(error) is Fault.OUTAGE and _sqlite_code(error) not in _BUSY_CODES
        return bool(self._database.connection().closed) or sqlstate_of(error) in _PREPARED_STATES

    def _compares_bytes(self) -> bool:
        """Say whether the database orders texts by their bytes; it is asked once a connection."""
        if self._is_bytewise is None:
            ((self._is_bytewise,),) = self._rows(_DATABASE_IS_BYTEWISE, {})
        return bool(self._is_bytewise)

    def _reads_right_when_prepared(self) -> bool:
        """Say whether EXECUTE has right answers; it is asked once a connection.

        It takes its snapshot before it waits for a lock. Behind `migrate` that writes a table anew it would read with
        one of before, for which the new table is empty.
        """
        if self._may_prepare is None:
            self._may_prepare = not is_to_be_rewritten(self._database)
        return self._may_prepare

    def _rows(self, sql: str, parameters: dict[str, object]) -> Rows:
        rows: Rows = self._database.execute_sql(sql, parameters).fetchall()
        return rows


def _sqlite_code(error: BaseException) -> int | None:
    return getattr(getattr(error, "orig", error), "sqlite_errorcode", None)


def _for_postgresql(value: Value) -> object:
    if isinstance(value, str):
        return value if _can_be_stored(value) else None
    if value is None or isinstance(value, int | datetime):
        return value
    return [text for text in value if _can_be_stored(text)]


def _for_sqlite(value: Value) -> object:
    match _for_postgresql(value):
        case list() as texts:
            return json.dumps(texts)
        case datetime() as time:
            # zeros left out, it is not greater than any other text for the same time
            return without_zeros(time.isoformat(" "))
        case bound:
            return bound


def _can_be_stored(text: str) -> bool:
    """Say whether a text can be in a row: no NUL, no lone surrogate. What can't is bound as NULL, equal to nothing."""
    return not _UNSTORABLE.search(text)
