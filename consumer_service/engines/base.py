"""What the writer asks of a database, whatever engine it is (`docs/databases.md`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from msgspec import Raw
from peewee import Database

from consumer_service.statements import Query, Table, Upsert
from libaggregator.messages import Message

Row = tuple[Any, ...]

# rows in one statement: above it, no engine gets faster and the text only gets longer
PAGE = 1000
# bytes or characters of details that are compared in memory; what is longer would fill it
SHORT_DETAILS = 1000


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


def of_table(statement: str, table: Table, **names: str) -> str:
    """Return one of the statements for any table, with the name and columns of this one and further `names`."""
    return statement.format(table=table.name, columns=table.column_list, **names)


def with_texts(table: Table, rows: Iterable[Row]) -> Iterable[Row]:
    """Give out rows as drivers know them, one after another: with a text where a row has a part of a payload."""
    if table.long_text is None:
        return rows
    place = list(table.columns).index(table.long_text)
    return ((*row[:place], _plain_text(row[place]), *row[place + 1 :]) for row in rows)


def _plain_text(value: str | Raw | None) -> str | None:
    return str(value, "utf-8") if isinstance(value, Raw) else value
