"""Writes what is in an export to a database: nothing before the whole file was checked, and nothing over what is there.

A cluster that has a report in the database keeps all that it has of it. Everything else that is there stays too, so
that an import can be broken off anywhere and done again, and that a newer report is never undone (`docs/export.md`).
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Event

from peewee import Database, PostgresqlDatabase

from consumer_service.engines import Engine, Row, engine_for
from consumer_service.statements import Upsert
from consumer_service.transfer.exporter import Progress, Stopped
from consumer_service.transfer.files import ExportFile
from consumer_service.transfer.line_format import Limits, place_of
from consumer_service.transfer.line_reader import Block, FileRefused, LineReader
from consumer_service.transfer.tables import EXPORTED, Exported
from libaggregator.settings import DatabaseSettings
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, READ_ONLY, Fault, describe, fault_of, sqlstate_of
from libaggregator.storage.schema import require_schema
from libaggregator.threads import in_a_thread

_ATTEMPTS = 10
_LOCK_TIMEOUT = "55P03"
_CONFLICTS = ("40001", "40P01", _LOCK_TIMEOUT)
_COPY_ALWAYS = 1

_ADD = "INSERT INTO {table} ({columns}) {{rows}} ON CONFLICT DO NOTHING"
_ADD_WITHOUT_REPORT = """
INSERT INTO {table} ({columns})
WITH incoming ({columns}) AS ({{rows}})
SELECT {columns} FROM incoming WHERE NOT EXISTS (SELECT 1 FROM report WHERE report.cluster = incoming.cluster_id)
ON CONFLICT DO NOTHING
"""
_LOCK_OUT_CONSUMERS = "LOCK TABLE report IN EXCLUSIVE MODE"
"""Each batch of a consumer begins with row locks on `report`; reads go on.

A consumer that read which hits a new cluster has must not be given others before it wrote the report.
"""
_REPORT = "report"
_VOTES = "cluster_rule_user_feedback"
_DELETE_OF_MOVED = tuple(
    f"""
WITH wanted (org_id, cluster_id) AS ({{wanted}})
DELETE FROM {table}
WHERE (org_id, cluster_id) IN (
    SELECT CAST(wanted.org_id AS bigint), wanted.cluster_id
    FROM wanted JOIN report ON report.cluster = wanted.cluster_id
    WHERE report.org_id <> wanted.org_id
)
"""  # noqa: S608
    for table in ("rule_hit", "recommendation")
)
"""What was imported of clusters before a consumer gave them their first report, under another organization.

Where a cluster has no report, the consumer replaces only the rows of the organization of its message.
"""


class DatabaseRefused(Exception):
    """The database can't be imported into; the text says why, and what to do. Nothing was written."""


class DatabaseReadOnly(Exception):
    """The database takes no changes (`libaggregator.storage.faults.READ_ONLY`). Nothing was written."""


class ImportBroken(Exception):
    """The import could not go on; the text says why, in one line. What was written stays."""


class RowRefused(ImportBroken):
    """The database refuses a row of the file, as it would again."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which file is to be imported, and whether to a database that has rows."""

    name: str
    merge: bool


@dataclass(slots=True)
class Summary:
    """How many rows of each table were added, and how many were left as they are, or left out for a report there."""

    added: dict[str, int] = field(default_factory=lambda: {table.name: 0 for table in EXPORTED})
    left: dict[str, int] = field(default_factory=lambda: {table.name: 0 for table in EXPORTED})


def import_file(settings: DatabaseSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    """Check a file and write its rows to a database, which has to be empty unless `order.merge` is set.

    Counts in `summary`, whatever happens. Raises SettingsError, SchemaError, DatabaseRefused, DatabaseReadOnly or
    FileRefused before anything is written, OSError if the file can't be read, Stopped after `stop` was set, one of
    DATABASE_ERRORS or ImportBroken: what was written stays then.
    """
    in_a_thread("import", _import, settings, order, stop, progress, summary)


def _import(settings: DatabaseSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    database = open_writer(settings, "aggregator-consumer import")
    with closing(database):
        require_schema(database)
        limits = _limits_of(database)
        if not order.merge:
            _refuse_rows(database)
        # a check may take long, and firewalls forget a connection over which nothing goes
        database.close()
        with closing(ExportFile(order.name)) as file:
            rows = _check(file, limits, _Reports(database), stop, progress)
            importer = _Importer(database, summary)
            with progress("Importing", rows) as advance:
                for block in LineReader(file.open(), limits).blocks():
                    if stop.is_set():
                        raise Stopped
                    importer.write(block)
                    advance(len(block.rows))
        _tell_planner(database, [table for table, added in summary.added.items() if added])


def _check(file: ExportFile, limits: Limits, reports: "_Reports", stop: Event, progress: Progress) -> int:
    """Read the whole file, and return how many rows it has."""
    reader = LineReader(file.open(), limits)
    passed = 0
    with progress("Checking", file.size) as advance, closing(reports):
        for block in reader.blocks():
            if stop.is_set():
                raise Stopped
            if block.table.name == _REPORT:
                reports.keep(block)
            elif block.table.name == _VOTES:
                reports.refuse_votes_without(block)
            advance(file.position - passed)
            passed = file.position
    return sum(reader.counts.values())


class _Reports:
    """The clusters that have a report in a file, outside of memory, and in the database to which it goes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # without a name: SQLite keeps some of it in memory, the rest in a temporary file of its own
        # https://www.sqlite.org/inmemorydb.html#temp_db
        self._of_file = sqlite3.connect("")
        self._of_file.execute("CREATE TABLE report (cluster TEXT PRIMARY KEY) WITHOUT ROWID")

    def keep(self, reports: Block) -> None:
        """Remember the clusters of reports; raises ImportBroken where there is no room for temporary files."""
        try:
            self._of_file.executemany("INSERT INTO report VALUES (?)", map(reports.table.key_of, reports.rows))
        except sqlite3.Error as error:
            raise ImportBroken(f"a temporary file for the clusters of its reports can't be written: {error}") from None

    def refuse_votes_without(self, votes: Block) -> None:
        """Raise FileRefused at the first vote whose cluster has no report, neither in the file nor in the database."""
        place = votes.table.columns.index("cluster_id")
        clusters = dict.fromkeys(row[place] for row in votes.rows)
        missing = self._without_report(clusters)
        for line, row in enumerate(votes.rows, votes.first_line):
            if row[place] in missing:
                problem = "the table report has no such cluster, which its foreign key demands"
                raise FileRefused(f"line {line}: {place_of(votes.table, row)}: {problem}")

    def close(self) -> None:
        """Forget them."""
        self._of_file.close()

    def _without_report(self, clusters: Iterable[str]) -> set[str]:
        select = "SELECT 1 FROM report WHERE cluster = {}"
        of_file = select.format("?")
        missing = [cluster for cluster in clusters if not self._of_file.execute(of_file, (cluster,)).fetchone()]
        if not missing:
            return set()
        of_database = select.format(self._database.param)
        with self._database.connection_context():
            return {
                cluster for cluster in missing if not self._database.execute_sql(of_database, (cluster,)).fetchone()
            }


class _Importer:
    """Writes blocks, each in a transaction of its own."""

    def __init__(self, database: Database, summary: Summary) -> None:
        self._database = database
        # rows as the text of a statement would have no types where all of a column are NULL
        self._engine: Engine = engine_for(database, _COPY_ALWAYS)
        self._summary = summary
        self._upserts = {table.name: _upsert(table) for table in EXPORTED}

    def write(self, block: Block) -> None:
        """Add the rows of a block that are not there, and count them."""
        try:
            self._add(block.table, block.rows)
        except DATABASE_ERRORS as error:
            if fault_of(error) is not Fault.VALUES:
                raise
            self._add_singly(block)

    def _add(self, table: Exported, rows: list[Row]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                added = self._write_once(table, rows)
                break
            except DATABASE_ERRORS as error:
                if sqlstate_of(error) not in _CONFLICTS or attempt == _ATTEMPTS:
                    raise
        self._summary.added[table.name] += added
        self._summary.left[table.name] += len(rows) - added

    def _write_once(self, table: Exported, rows: list[Row]) -> int:
        with self._engine.transaction():
            if isinstance(self._database, PostgresqlDatabase):
                self._database.execute_sql(_LOCK_OUT_CONSUMERS)
            added = self._engine.store(self._upserts[table.name], rows)
            if table.name == "report" and added < len(rows):
                owners = [row[:2] for row in rows]
                for statement in _DELETE_OF_MOVED:
                    self._engine.run(statement, owners)
            return added

    def _add_singly(self, block: Block) -> None:
        """Add the rows one by one, to name the one that the database does not take."""
        for number, row in enumerate(block.rows, block.first_line):
            try:
                self._add(block.table, [row])
            except DATABASE_ERRORS as error:
                if fault_of(error) is not Fault.VALUES:
                    raise
                raise RowRefused(
                    f"line {number}: table {block.table.name}: the database refuses it: {describe(error)}"
                ) from None


def _upsert(table: Exported) -> Upsert:
    text = _ADD_WITHOUT_REPORT if table.is_of_report else _ADD
    return Upsert(f"import_{table.name}", table.table, text.format(table=table.name, columns=table.table.column_list))


def _limits_of(database: Database) -> Limits:
    """Return what a database can hold.

    Raises DatabaseReadOnly, and DatabaseRefused if the role may not do what an import does.
    """
    if not isinstance(database, PostgresqlDatabase):
        return Limits()
    # asked before the file is checked, which may take long
    if database.execute_sql("SHOW transaction_read_only").fetchone() == ("on",):
        raise DatabaseReadOnly(READ_ONLY)
    _refuse_role(database)
    sizes: dict[str, int] = {}
    for table in EXPORTED:
        cursor = database.execute_sql(f"SELECT {table.table.column_list} FROM {table.name} LIMIT 0")  # noqa: S608
        sizes |= {f"{table.name}.{column.name}": column.internal_size for column in cursor.description}
    return Limits(takes_nul=False, integer_bytes=sizes)


def _refuse_role(database: PostgresqlDatabase) -> None:
    advice = "import as the owner of the tables"
    for table in EXPORTED:
        if database.execute_sql("SELECT has_table_privilege(%s, 'INSERT')", (table.name,)).fetchone() != (True,):
            raise DatabaseRefused(f"the role may not write to {table.name}; {advice}")
    right = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
    if database.execute_sql(right).fetchone() != (True,):
        raise DatabaseRefused(f"the role may not make temporary tables; {advice}, with TEMPORARY on the database")


def _refuse_rows(database: Database) -> None:
    for table in EXPORTED:
        if database.execute_sql(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone():  # noqa: S608
            raise DatabaseRefused(
                f"the database is not empty: there are rows in {table.name}. With --merge all that is there stays, and"
                " what is missing is added, which also goes on with an import that was broken off"
            )


def _tell_planner(database: Database, tables: list[str]) -> None:
    """Give PostgreSQL the statistics that it would gather only minutes later, if the role may."""
    if isinstance(database, PostgresqlDatabase):
        with suppress(*DATABASE_ERRORS):
            database.execute_sql("SET statement_timeout = 0")
            for table in tables:
                database.execute_sql(f"VACUUM (ANALYZE) {table}")
