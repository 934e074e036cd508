"""PostgreSQL: row locks, parameters as arrays, and COPY where it is quicker than the text of a statement."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from peewee import Database
from psycopg2.errors import UniqueViolation
from psycopg2.extras import execute_batch, execute_values

from consumer_service import statements
from consumer_service.copying import CopyFile
from consumer_service.engines.base import PAGE, SHORT_DETAILS, Conflict, Engine, Row, of_table, with_texts
from consumer_service.statements import Query, Table, Upsert
from libaggregator.messages import Message

# what a column holds that an existing deployment made and nobody widened yet
_LARGEST_INTEGER = 2**31 - 1
# an entry of an index has at most 2,704 bytes, a character up to four
_SURELY_INDEXED = 600


class PostgresqlEngine(Engine):
    """PostgreSQL: row locks, parameters as arrays, and COPY where it is quicker than the text of a statement."""

    def __init__(self, database: Database, many: int, keeps: bool) -> None:
        super().__init__(database, keeps)
        self._many = many

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin a transaction that waits for no lock for long, and in which rows are found by index."""
        with super().transaction():
            self._cursor().execute(statements.BEGIN_WRITING)
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Ask in such a transaction."""
        with self.transaction():
            yield

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        """Send the rows as an array for each column, in one statement."""
        if not rows:
            return ()
        cursor = self._cursor()
        text = query.text.format(
            wanted=_arrays(rows),
            for_update="FOR UPDATE OF report",
            unless_locked="FOR UPDATE OF report SKIP LOCKED",
            text_of_length="CASE WHEN octet_length(report.report) = wanted.text_bytes THEN report.report END",
            short_details=f"CASE WHEN octet_length(template_data) <= {SHORT_DETAILS} THEN template_data END",
        )
        cursor.execute(text, [*_columns(rows), *values])
        found: Iterable[Row] = cursor
        return found

    def keep_writers_out(self) -> None:
        """Lock the table of reports against everybody who writes to it."""
        self._cursor().execute(statements.KEEP_WRITERS_OUT)

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        """Change and return the rows in one statement."""
        return self.select(statements.MOVE_AND_READ_RECOMMENDATIONS, owners, this_second)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Copy rows that are many, else send them as one statement; raises Conflict if a row is there."""
        try:
            if len(rows) >= self._many:
                self._copy(table, rows, self._integer_bytes(table))
            elif rows:
                text = of_table(statements.INSERT, table, rows="VALUES %s")
                execute_values(self._cursor(), text, with_texts(table, rows), page_size=len(rows))
        except UniqueViolation as error:
            raise Conflict("another consumer wrote a row of the same cluster") from error

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        """Let rows that are many go through a temporary table, where the role may make one, else be one statement."""
        if not rows:
            return 0
        cursor = self._cursor()
        if len(rows) >= self._many and self._has_incoming(upsert):
            incoming = upsert.incoming
            sizes = {name: statements.INTEGER_BYTES.get(kind, 0) for name, kind in incoming.columns.items()}
            self._copy(incoming, rows, sizes)
            cursor.execute(upsert.text.format(rows=of_table(statements.SELECT, upsert.incoming)))
        else:
            text = upsert.text.format(rows="VALUES %s")
            execute_values(cursor, text, with_texts(upsert.table, rows), page_size=len(rows))
        written: int = cursor.rowcount
        return written

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        """Send the rows as an array for each column, in one statement."""
        if not rows:
            return 0
        cursor = self._cursor()
        cursor.execute(statement.format(wanted=_arrays(rows)), [*_columns(rows), *values])
        changed: int = cursor.rowcount
        return changed

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        """Send many statements at a time."""
        if rows:
            execute_batch(self._cursor(), statement, rows, page_size=PAGE)

    def may_refuse(self, message: Message) -> bool:
        """Whether an organization may be too large for its column, or a key too long for an index."""
        return message.org_id > _LARGEST_INTEGER or any(
            len(hit.component) + len(hit.error_key) > _SURELY_INDEXED for hit in message.hits
        )

    def _copy(self, table: Table, rows: Sequence[Row], integer_bytes: dict[str, int]) -> None:
        self._cursor().copy_expert(of_table(statements.COPY, table), CopyFile(table, rows, integer_bytes))

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
        cursor.execute(of_table(statements.LOOK_AT_COLUMNS, table))
        return {column.name: column.internal_size for column in cursor.description}

    def _cursor(self) -> Any:
        return self._database.cursor()


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _arrays(rows: Sequence[Row]) -> str:
    marks = ", ".join(["%s"] * len(rows[0]))
    return statements.UNNEST.format(arrays=marks)
