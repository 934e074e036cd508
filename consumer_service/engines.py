"""What differs between the engines in writing many rows: parameter marks, locks, and the way to send rows.

Statements are written once, for both, with `%s` for a parameter and two names: `{rows}` stands for the rows of a
VALUES list, `{for_update}` for the lock on the rows of `report` that are read.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from peewee import Database, PostgresqlDatabase
from psycopg2.extras import execute_batch, execute_values

from libaggregator.messages import Message

Row = tuple[Any, ...]

# what a column holds that an existing deployment made and nobody widened yet
_LARGEST_INTEGER = 2**31 - 1
# an entry of an index has at most 2,704 bytes, a character up to four
_SURELY_INDEXED = 600
_PAGE = 1000  # rows in one statement: above it, neither engine gets faster and the text only gets longer


class Conflict(Exception):
    """Another consumer wrote one of the rows in the meantime; the transaction has to be done again."""


class Engine(ABC):
    """Sends the statements of the writer to one database, over the connection of the calling thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction that writes; commit at the end, roll back on any exception."""
        with self._database.atomic():
            yield

    def close(self) -> None:
        """Close the connection, so that the next statement opens a new one; an error of a dead one is no matter."""
        self._database.close()

    def ping(self) -> None:
        """Ask the database for a sign of life."""
        self._database.execute_sql("SELECT 1").fetchone()

    @abstractmethod
    def select(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        """Return what a SELECT that joins with `{rows}` finds."""

    @abstractmethod
    def insert(self, statement: str, rows: Sequence[Row]) -> None:
        """Run an INSERT ... VALUES `{rows}`."""

    @abstractmethod
    def insert_counted(self, statement: str, rows: Sequence[Row], new: int) -> None:
        """As `insert`; raises Conflict unless each row was written and exactly `new` of them were not there."""

    @abstractmethod
    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of parameters."""

    @abstractmethod
    def may_refuse(self, message: Message) -> bool:
        """Whether the database might refuse the values of a message; True if in doubt."""

    @abstractmethod
    def time(self, value: Any) -> datetime | None:
        """Return a time that was read, in the form in which times are compared."""


class _Postgresql(Engine):
    """PostgreSQL: row locks, and many rows in the text of one statement."""

    def select(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        text = statement.format(rows="%s", for_update="FOR UPDATE OF report")
        # one page, so that the rows are locked in one order
        return execute_values(self._cursor(), text, rows, page_size=max(1, len(rows)), fetch=True) if rows else []

    def insert(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            execute_values(self._cursor(), statement.format(rows="%s"), rows, page_size=_PAGE)

    def insert_counted(self, statement: str, rows: Sequence[Row], new: int) -> None:
        # xmax is 0 for a row that did not exist before this statement
        text = statement.format(rows="%s") + " RETURNING (xmax = 0)"
        written = execute_values(self._cursor(), text, rows, page_size=_PAGE, fetch=True) if rows else []
        if len(written) != len(rows) or sum(inserted for (inserted,) in written) != new:
            raise Conflict("another consumer stored a report of the same cluster")

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            execute_batch(self._cursor(), statement, rows, page_size=_PAGE)

    def may_refuse(self, message: Message) -> bool:
        return message.org_id > _LARGEST_INTEGER or any(
            len(hit.component) + len(hit.error_key) > _SURELY_INDEXED for hit in message.hits
        )

    def time(self, value: Any) -> datetime | None:
        found: datetime | None = value
        return found

    def _cursor(self) -> Any:
        return self._database.cursor()


class _Sqlite(Engine):
    """SQLite: one writer at a time, prepared statements for single rows, times as text."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin at once with the lock for writing, so that nothing read here can change before it is written."""
        with self._database.atomic("IMMEDIATE"):
            yield

    def select(self, statement: str, rows: Sequence[Row]) -> list[Row]:
        found: list[Row] = []
        cursor = self._database.cursor()
        for start in range(0, len(rows), _PAGE):
            page = rows[start : start + _PAGE]
            text = statement.format(rows=",".join(_marks(row) for row in page), for_update="")
            found += cursor.execute(text, [value for row in page for value in row]).fetchall()
        return found

    def insert(self, statement: str, rows: Sequence[Row]) -> None:
        if rows:
            self._database.cursor().executemany(statement.format(rows=_marks(rows[0])), rows)

    def insert_counted(self, statement: str, rows: Sequence[Row], new: int) -> None:
        # nobody else can have written since this transaction began
        self.insert(statement, rows)

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        self._database.cursor().executemany(statement.replace("%s", "?"), rows)

    def may_refuse(self, message: Message) -> bool:
        return False

    def time(self, value: Any) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


def engine_for(database: Database) -> Engine:
    """Return the engine that fits a database."""
    return _Postgresql(database) if isinstance(database, PostgresqlDatabase) else _Sqlite(database)


def _marks(row: Row) -> str:
    return f"({','.join('?' * len(row))})"
