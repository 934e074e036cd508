"""What differs between the engines in writing many rows: parameter marks, locks, and the way to send rows."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import Any

from msgspec import Raw
from peewee import Database, PostgresqlDatabase
from psycopg2.errors import UniqueViolation
from psycopg2.extras import execute_batch, execute_values

from consumer_service import statements
from consumer_service.copying import CopyFile
from consumer_service.statements import Query, Table, Upsert
from libaggregator.messages import Message
from libaggregator.storage.connections import is_of_lost_file
from libaggregator.storage.faults import DATABASE_ERRORS

Row = tuple[Any, ...]

MANY = 20
"""Rows from which on COPY, with its further steps, is quicker than one statement that holds them as text."""

# what a column holds that an existing deployment made and nobody widened yet
_LARGEST_INTEGER = 2**31 - 1
# an entry of an index has at most 2,704 bytes, a character up to four
_SURELY_INDEXED = 600
# details up to here are compared in memory; what is longer would fill it
_SHORT_DETAILS = 1000
_INTEGER_BYTES = {"org_id": 8, "kafka_offset": 8, "partition": 4, "topic_offset": 8}  # in tables of our own
_ROLLED_BACK = "cannot rollback - no transaction is active"
_PAGE = 1000  # rows in one statement: above it, neither engine gets faster and the text only gets longer


class Conflict(Exception):
    """Another consumer wrote one of the rows in the meantime; the transaction has to be done again."""


class Engine(ABC):
    """Sends the statements of the writer to one database, over the connection of the calling thread."""

    pause = 0.0
    """Seconds between two transactions of long work, so that other writers get their turn."""

    def __init__(self, database: Database, keeps: bool = True) -> None:
        self._database = database
        self._keeps = keeps

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction that writes; commit at the end (of a rehearsal: undo), roll back on any exception."""
        with self._database.atomic() as transaction:
            yield
            if not self._keeps:
                transaction.rollback()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the questions of the block go through indexes, as those of a transaction that writes do."""
        yield

    def close(self) -> None:
        """Close the connection, so that the next statement opens a new one; an error of a dead one is no matter."""
        self._database.close()

    def ping(self) -> None:
        """Ask the database for a sign of life."""
        self._database.execute_sql("SELECT 1").fetchone()

    def read(self, statement: str, *values: Any) -> list[Row]:
        """Return what a SELECT without `{wanted}` finds, each value as the driver has it."""
        text = statement.replace("%s", self._database.param)
        rows: list[Row] = self._database.execute_sql(text, values).fetchall()
        return rows

    def change(self, statement: str, *values: Any) -> int:
        """Run a statement without `{wanted}` that changes rows; return how many it changed."""
        changed: int = self._database.execute_sql(statement.replace("%s", self._database.param), values).rowcount
        return changed

    @abstractmethod
    def keep_writers_out(self) -> None:
        """Wait for the transactions of other writers, and keep new ones waiting until the end of this one.

        For what the lock on a row of `report` can't guard, since there is no such row.
        """

    @abstractmethod
    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        """Yield what a query finds for all rows that `{wanted}` gives; `values` are the parameters after them."""

    @abstractmethod
    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        """Let the recommendations of clusters, each with its organization, be of this second, and return them."""

    @abstractmethod
    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows that are not there; raises Conflict if one of them is."""

    @abstractmethod
    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        """Run an INSERT that changes what is there; return how many rows were inserted or changed."""

    @abstractmethod
    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        """Run a statement for all rows that `{wanted}` gives, `values` after them; return how many rows it changed."""

    @abstractmethod
    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of parameters."""

    @abstractmethod
    def may_refuse(self, message: Message) -> bool:
        """Whether the database might refuse the values of a message; True if in doubt."""


class _Postgresql(Engine):
    """PostgreSQL: row locks, parameters as arrays, and COPY where it is quicker than the text of a statement."""

    def __init__(self, database: Database, many: int, keeps: bool) -> None:
        super().__init__(database, keeps)
        self._many = many

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            self._cursor().execute(statements.BEGIN_WRITING)
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self.transaction():
            yield

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        if not rows:
            return ()
        cursor = self._cursor()
        text = query.text.format(
            wanted=_arrays(rows),
            for_update="FOR UPDATE OF report",
            unless_locked="FOR UPDATE OF report SKIP LOCKED",
            text_of_length="CASE WHEN octet_length(report.report) = wanted.text_bytes THEN report.report END",
            short_details=f"CASE WHEN octet_length(template_data) <= {_SHORT_DETAILS} THEN template_data END",
        )
        cursor.execute(text, [*_columns(rows), *values])
        found: Iterable[Row] = cursor
        return found

    def keep_writers_out(self) -> None:
        self._cursor().execute(statements.KEEP_WRITERS_OUT)

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        return self.select(statements.MOVE_AND_READ_RECOMMENDATIONS, owners, this_second)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        try:
            if len(rows) >= self._many:
                self._copy(table, rows, self._integer_bytes(table))
            elif rows:
                text = _of_table(statements.INSERT, table, rows="VALUES %s")
                execute_values(self._cursor(), text, _with_texts(table, rows), page_size=len(rows))
        except UniqueViolation as error:
            raise Conflict("another consumer wrote a row of the same cluster") from error

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        cursor = self._cursor()
        if len(rows) >= self._many and self._has_incoming(upsert):
            self._copy(upsert.incoming, rows, _INTEGER_BYTES)
            cursor.execute(upsert.text.format(rows=_of_table(statements.SELECT, upsert.incoming)))
        else:
            text = upsert.text.format(rows="VALUES %s")
            execute_values(cursor, text, _with_texts(upsert.table, rows), page_size=len(rows))
        written: int = cursor.rowcount
        return written

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        if not rows:
            return 0
        cursor = self._cursor()
        cursor.execute(statement.format(wanted=_arrays(rows)), [*_columns(rows), *values])
        changed: int = cursor.rowcount
        return changed

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            execute_batch(self._cursor(), statement, rows, page_size=_PAGE)

    def may_refuse(self, message: Message) -> bool:
        return message.org_id > _LARGEST_INTEGER or any(
            len(hit.component) + len(hit.error_key) > _SURELY_INDEXED for hit in message.hits
        )

    def _copy(self, table: Table, rows: Sequence[Row], integer_bytes: dict[str, int]) -> None:
        self._cursor().copy_expert(_of_table(statements.COPY, table), CopyFile(table, rows, integer_bytes))

    def _has_incoming(self, upsert: Upsert) -> bool:
        """Make the temporary table for the rows of an upsert, which the session keeps; False if the role may not."""
        name, cursor = upsert.incoming.name, self._cursor()
        cursor.execute(
            "SELECT to_regclass(%s) IS NOT NULL, has_database_privilege(current_database(), 'TEMPORARY')",
            (f"pg_temp.{name}",),
        )
        is_there, may_make = cursor.fetchone()
        if not is_there and may_make:
            columns = ", ".join(f"{column} {kind}" for column, kind in upsert.incoming.columns.items())
            cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DELETE ROWS")
        return bool(is_there or may_make)

    def _integer_bytes(self, table: Table) -> dict[str, int]:
        """Return the sizes of the integer columns as they are right now: `migrate` may widen them while this runs."""
        cursor = self._cursor()
        cursor.execute(_of_table(statements.LOOK_AT_COLUMNS, table))
        return {column.name: column.internal_size for column in cursor.description}

    def _cursor(self) -> Any:
        return self._database.cursor()


class _Sqlite(Engine):
    """SQLite: one writer at a time, prepared statements for single rows, times as text."""

    # who waits for the lock looks for it every 0.1 s
    pause = 0.2

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin at once with the lock for writing, so that nothing read here can change before it is written."""
        self._leave_lost_file()
        try:
            with self._database.atomic("IMMEDIATE") as transaction:
                yield
                if not self._keeps:
                    transaction.rollback()
        except DATABASE_ERRORS as error:
            raise _cause_of(error) from None
        if is_of_lost_file(self._database):
            raise sqlite3.OperationalError("the file was removed or replaced while it was written")

    def ping(self) -> None:
        """Read a table: what is about none SQLite answers without its file."""
        self._leave_lost_file()
        self._database.execute_sql("SELECT version FROM migration_info").fetchone()

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        short_details = f"CASE WHEN length(template_data) <= {_SHORT_DETAILS} THEN template_data END"
        # a row that is written again with the same text costs less here than to find out that it is the same
        names = {"for_update": "", "unless_locked": "", "text_of_length": "NULL", "short_details": short_details}
        for page in _pages(rows):
            text = query.text.replace("%s", "?").format(wanted=_values(page), **names)
            for row in self._cursor().execute(text, [*chain.from_iterable(page), *values]):
                yield row if query.time_at is None else _with_time(row, query.time_at)

    def keep_writers_out(self) -> None:
        """Do nothing: there is one writer at a time."""

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        ordered = sorted(owners)
        self.run_each(statements.MOVE_RECOMMENDATIONS_ON, [(this_second, *owner) for owner in ordered])
        self.run_each(statements.FILL_RULE_IDS, ordered)
        return self.select(statements.READ_RECOMMENDATIONS, owners)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        if rows:
            text = _of_table(statements.INSERT, table, rows=f"VALUES {_marks(rows[0])}")
            # its keys begin with the organization: in their order the same pages are changed many times in a row
            ordered = sorted(rows) if table is statements.RECOMMENDATION else rows
            self._cursor().executemany(text, _with_texts(table, ordered))

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        cursor = self._cursor()
        cursor.executemany(upsert.text.format(rows=f"VALUES {_marks(rows[0])}"), _with_texts(upsert.table, rows))
        written: int = cursor.rowcount
        return written

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        text, changed = statement.replace("%s", "?"), 0
        for page in _pages(rows):
            parameters = [*chain.from_iterable(page), *values]
            changed += self._cursor().execute(text.format(wanted=_values(page)), parameters).rowcount
        return changed

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        self._cursor().executemany(statement.replace("%s", "?"), rows)

    def may_refuse(self, message: Message) -> bool:
        return False

    def _leave_lost_file(self) -> None:
        """Close a connection to a file that was removed or replaced: SQLite would write to it for ever, for nobody."""
        if is_of_lost_file(self._database):
            self._database.close()

    def _cursor(self) -> Any:
        return self._database.cursor()


def engine_for(database: Database, many: int = MANY, *, rehearsal: bool = False) -> Engine:
    """Return the engine that fits a database; from `many` rows on PostgreSQL gets them by COPY.

    A rehearsal does all that the transactions demand, and undoes each of them instead of committing it.
    """
    if isinstance(database, PostgresqlDatabase):
        return _Postgresql(database, many, not rehearsal)
    return _Sqlite(database, not rehearsal)


def _cause_of(error: BaseException) -> BaseException:
    """Return what made SQLite roll back by itself, as where the disk is full; whoever does so again hears only that."""
    while _ROLLED_BACK in str(error) and error.__context__ is not None:
        error = error.__context__
    return error


def _of_table(statement: str, table: Table, **names: str) -> str:
    return statement.format(table=table.name, columns=table.column_list, **names)


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _arrays(rows: Sequence[Row]) -> str:
    marks = ", ".join(["%s"] * len(rows[0]))
    return statements.UNNEST.format(arrays=marks)


def _with_texts(table: Table, rows: Iterable[Row]) -> Iterable[Row]:
    """Give out rows as drivers know them, one after another: with a text where a row has a part of a payload."""
    if table.long_text is None:
        return rows
    place = list(table.columns).index(table.long_text)
    return ((*row[:place], _plain_text(row[place]), *row[place + 1 :]) for row in rows)


def _plain_text(value: str | Raw | None) -> str | None:
    return str(value, "utf-8") if isinstance(value, Raw) else value


def _with_time(row: Row, place: int) -> Row:
    """Return a row of SQLite, which holds times as text, with a time at this place."""
    text = row[place]
    return row if text is None else (*row[:place], datetime.fromisoformat(text), *row[place + 1 :])


def _pages(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _PAGE):
        yield rows[start : start + _PAGE]


def _values(rows: Sequence[Row]) -> str:
    return f"VALUES {','.join(_marks(row) for row in rows)}"


def _marks(row: Row) -> str:
    return f"({','.join('?' * len(row))})"
