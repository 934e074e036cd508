"""Writes all tables of a database, as they are at one moment, beside whoever writes to it."""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from threading import Event
from typing import Any, BinaryIO

import msgspec
from peewee import Database, OperationalError, PostgresqlDatabase

from consumer_service.statements import INTEGER_BYTES
from consumer_service.transfer import files
from consumer_service.transfer.line_format import (
    FORMAT,
    FORMAT_VERSION,
    Header,
    Limits,
    ValueRefused,
    in_words,
    key_for_people,
    place_of,
    row_type,
    shown,
)
from consumer_service.transfer.line_writer import LineWriter, TimeRefused
from consumer_service.transfer.tables import EXPORTED, Exported
from libaggregator.build import build_facts
from libaggregator.clock import utc_now
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader
from libaggregator.storage.faults import DATABASE_ERRORS
from libaggregator.storage.models import SCHEMA_VERSION
from libaggregator.storage.schema import require_schema
from libaggregator.threads import in_a_thread

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far it is: takes what is done and how many steps that has, gives what moves it on by so many."""

_NOT_TEXT = "Could not decode to UTF-8"
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
# in one message: a session may have little time between two
_BEGIN = """
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL datestyle = 'ISO'
"""
_COUNT_SECONDS = 60
_REFUSED_TIME = "{column} < '0001-01-01' OR {column} >= '10000-01-01'"
_VOTE_WITHOUT_REPORT = """
    SELECT cluster_id FROM cluster_rule_user_feedback
    WHERE NOT EXISTS (SELECT 1 FROM report WHERE report.cluster = cluster_rule_user_feedback.cluster_id) LIMIT 1
"""


class Stopped(Exception):
    """It was told to stop, and did not come to its end."""


def export(settings: DatabaseSettings, name: str, *, force: bool, stop: Event, progress: Progress) -> dict[str, int]:
    """Write all tables to a file and return the number of rows of each.

    `force` lets it replace a file. Raises SettingsError, SchemaError or BadName if it can't begin, ValueRefused at a
    value that no other database could take, Stopped after `stop` was set, one of DATABASE_ERRORS or OSError. There is
    no file under this name then but the one that was there.
    """
    return in_a_thread("export", _export, settings, name, force, stop, progress)


def _export(settings: DatabaseSettings, name: str, force: bool, stop: Event, progress: Progress) -> dict[str, int]:
    files.refuse_bad_name(name, force=force)
    # what a replica holds is older than what the consumers stored
    database = open_reader(replace(settings, read_url=Secret("")), "aggregator-consumer export")
    try:
        require_schema(database, to_write=False)
        snapshot = (_PostgresqlSnapshot if isinstance(database, PostgresqlDatabase) else _SqliteSnapshot)(database)
        with files.written(name, force=force) as file:
            return _write(snapshot, file, stop, progress)
    finally:
        # ends the transaction too, in which nothing was written
        database.close()


def _write(snapshot: "_Snapshot", file: BinaryIO, stop: Event, progress: Progress) -> dict[str, int]:
    snapshot.begin()
    header = Header(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        schema_version=SCHEMA_VERSION,
        program_version=build_facts().version,
        exported_at=f"{utc_now().isoformat(timespec='microseconds')}Z",
        engine=snapshot.engine,
        tables={table.name: list(table.columns) for table in EXPORTED},
    )
    with progress("Exporting", sum(map(snapshot.count, EXPORTED))) as advance:

        def after_block(rows: int) -> None:
            if stop.is_set():
                raise Stopped
            advance(rows)

        writer = LineWriter(file, header, after_block)
        for table in EXPORTED:
            writer.begin(table)
            snapshot.read(table, writer.add)
            writer.finish_table()
        return writer.end()


class _Snapshot(ABC):
    """The tables of a database as they are at one moment."""

    engine = ""
    collation = ""

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    def begin(self) -> None:
        """Let the moment be now."""

    @abstractmethod
    def read(self, table: Exported, add: Callable[[tuple[Any, ...]], None]) -> None:
        """Call `add` with each row of a table, in the order of its key."""

    def count(self, table: Exported) -> int:
        """Return how many rows a table has."""
        (found,) = self._database.execute_sql(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608
        return int(found)

    def _select(self, table: Exported) -> str:
        order = [
            name if table.table.columns[name] in INTEGER_BYTES else f"{name} {self.collation}" for name in table.key
        ]
        return f"SELECT {table.table.column_list} FROM {table.name} ORDER BY {', '.join(order)}"  # noqa: S608


class _PostgresqlSnapshot(_Snapshot):
    """By COPY, which gives one row after another, whatever their size."""

    engine = "postgresql"
    collation = 'COLLATE "C"'

    def begin(self) -> None:
        tables = ", ".join(table.name for table in EXPORTED)
        self._database.execute_sql(_BEGIN)
        # before the first SELECT: a table that is rewritten after the snapshot was taken looks empty in it
        self._database.execute_sql(f"LOCK TABLE {tables} IN ACCESS SHARE MODE")

    def read(self, table: Exported, add: Callable[[tuple[Any, ...]], None]) -> None:
        rows = _CopiedRows(table, add)
        try:
            self._database.cursor().copy_expert(f"COPY ({self._select(table)}) TO STDOUT", rows)
        except TimeRefused as error:
            found = self._count_refused_times(table)
            count = "" if found is None else f"; rows of {table.name} with such a time: {found}"
            raise ValueRefused(f"{error}{count}") from None

    def _count_refused_times(self, table: Exported) -> int | None:
        """Return how many rows have a time that can't be exported, None if that takes too long."""
        condition = " OR ".join(_REFUSED_TIME.format(column=table.columns[place]) for place in table.times)
        with suppress(*DATABASE_ERRORS):
            # in another session: that of the export is in the middle of a COPY
            self._database.close()
            self._database.execute_sql(f"SET statement_timeout = '{_COUNT_SECONDS}s'")
            (found,) = self._database.execute_sql(f"SELECT count(*) FROM {table.name} WHERE {condition}").fetchone()  # noqa: S608
            return int(found)
        return None


class _CopiedRows:
    """Takes the rows of COPY in its text format, one a call."""

    def __init__(self, table: Exported, add: Callable[[tuple[Any, ...]], None]) -> None:
        self._add = add
        self._columns = [int if kind in INTEGER_BYTES else _unescaped for kind in table.table.columns.values()]

    def write(self, line: bytes) -> None:
        texts = line[:-1].decode().split("\t")
        row = tuple(
            [None if text == r"\N" else convert(text) for convert, text in zip(self._columns, texts, strict=True)]
        )
        self._add(row)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found[1]], text) if "\\" in text else text


class _SqliteSnapshot(_Snapshot):
    """By a read transaction. A column of SQLite holds values of any type, whatever it was declared as."""

    engine = "sqlite"

    def begin(self) -> None:
        self._database.execute_sql("BEGIN")
        orphan = self._database.execute_sql(_VOTE_WITHOUT_REPORT).fetchone()
        if orphan:
            raise ValueRefused(
                f"table cluster_rule_user_feedback, rows of cluster {shown(orphan[0])}: the table report has no such"
                " cluster, which its foreign key demands"
            )

    def read(self, table: Exported, add: Callable[[tuple[Any, ...]], None]) -> None:
        expected = row_type(table, Limits())
        for row in self._rows(table):
            try:
                msgspec.convert(row, expected)
            except msgspec.ValidationError as error:
                raise ValueRefused(f"{place_of(table, row)}: {in_words(error, table, row)}") from None
            add(row)

    def _rows(self, table: Exported) -> Iterator[tuple[Any, ...]]:
        cursor = self._database.execute_sql(self._select(table))
        row: tuple[Any, ...] | None = None
        while True:
            before = row
            try:
                row = cursor.fetchone()
            except (sqlite3.OperationalError, OperationalError) as error:
                if _NOT_TEXT not in str(error):
                    raise
                # the message of the driver holds the whole text
                place = f"the row after {key_for_people(table, before)}" if before else "the first row"
                raise ValueRefused(f"table {table.name}, {place}: a text that is not UTF-8") from None
            if row is None:
                return
            yield row
