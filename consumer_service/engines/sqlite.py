"""SQLite: one writer at a time, prepared statements for single rows, times as text."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import Any

from consumer_service import statements
from consumer_service.engines.base import PAGE, SHORT_DETAILS, Engine, Row, of_table, with_texts
from consumer_service.statements import Query, Table, Upsert
from libaggregator.messages import Message
from libaggregator.storage.connections import is_of_lost_file
from libaggregator.storage.faults import DATABASE_ERRORS

_ROLLED_BACK = "cannot rollback - no transaction is active"


class SqliteEngine(Engine):
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
        """Run the query for a page of rows after another, the times of its answer read from text."""
        short_details = f"CASE WHEN length(template_data) <= {SHORT_DETAILS} THEN template_data END"
        # a row that is written again with the same text costs less here than to find out that it is the same
        names = {"for_update": "", "unless_locked": "", "text_of_length": "NULL", "short_details": short_details}
        for page in _pages(rows):
            text = query.text.replace("%s", "?").format(wanted=_values(page), **names)
            for row in self._cursor().execute(text, [*chain.from_iterable(page), *values]):
                yield row if query.time_at is None else _with_time(row, query.time_at)

    def keep_writers_out(self) -> None:
        """Do nothing: there is one writer at a time."""

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        """Change the rows in the order of their keys, then read them."""
        ordered = sorted(owners)
        self.run_each(statements.MOVE_RECOMMENDATIONS_ON, [(this_second, *owner) for owner in ordered])
        self.run_each(statements.FILL_RULE_IDS, ordered)
        return self.select(statements.READ_RECOMMENDATIONS, owners)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Run one prepared statement for each row; whoever else writes waits, so that there is no Conflict."""
        if rows:
            text = of_table(statements.INSERT, table, rows=f"VALUES {_marks(rows[0])}")
            # its keys begin with the organization: in their order the same pages are changed many times in a row
            ordered = sorted(rows) if table is statements.RECOMMENDATION else rows
            self._cursor().executemany(text, with_texts(table, ordered))

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        """Run one prepared statement for each row."""
        if not rows:
            return 0
        cursor = self._cursor()
        cursor.executemany(upsert.text.format(rows=f"VALUES {_marks(rows[0])}"), with_texts(upsert.table, rows))
        written: int = cursor.rowcount
        return written

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        """Run the statement for a page of rows after another."""
        text, changed = statement.replace("%s", "?"), 0
        for page in _pages(rows):
            parameters = [*chain.from_iterable(page), *values]
            changed += self._cursor().execute(text.format(wanted=_values(page)), parameters).rowcount
        return changed

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        """Run one prepared statement for each row."""
        self._cursor().executemany(statement.replace("%s", "?"), rows)

    def may_refuse(self, message: Message) -> bool:
        """Say no: SQLite takes texts and numbers of any size that a message can have."""
        return False

    def _leave_lost_file(self) -> None:
        """Close a connection to a file that was removed or replaced: SQLite would write to it for ever, for nobody."""
        if is_of_lost_file(self._database):
            self._database.close()

    def _cursor(self) -> Any:
        return self._database.cursor()


def _cause_of(error: BaseException) -> BaseException:
    """Return what made SQLite roll back by itself, as where the disk is full; whoever does so again hears only that."""
    while _ROLLED_BACK in str(error) and error.__context__ is not None:
        error = error.__context__
    return error


def _with_time(row: Row, place: int) -> Row:
    """Return a row of SQLite, which holds times as text, with a time at this place."""
    text = row[place]
    return row if text is None else (*row[:place], datetime.fromisoformat(text), *row[place + 1 :])


def _pages(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), PAGE):
        yield rows[start : start + PAGE]


def _values(rows: Sequence[Row]) -> str:
    return f"VALUES {','.join(_marks(row) for row in rows)}"


def _marks(row: Row) -> str:
    return f"({','.join('?' * len(row))})"
