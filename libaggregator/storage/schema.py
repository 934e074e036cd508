"""Which schema a database has, and how it gets ours (`docs/schema.md`, section 4)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from peewee import Database, PostgresqlDatabase, SqliteDatabase
from playhouse.migrations import Runner

from libaggregator.storage import migrations
from libaggregator.storage.connections import missing_file
from libaggregator.storage.faults import DATABASE_ERRORS, describe, is_refused_for_good
from libaggregator.storage.models import SCHEMA_VERSION, TABLES, AggregatorMigration, MigrationInfo

log = structlog.get_logger(__name__)

_STEPS = Path(migrations.__path__[0])
_ADVISORY_LOCK = 0x6167_6772  # any number, the same in every version of this program
_MIGRATE = "run `aggregator-consumer migrate` first"


class SchemaError(Exception):
    """The database has a schema that this program must not touch; the text says what to do."""


def check_schema(database: Database) -> list[str]:
    """Return the names of our steps that are still to do, none if all are.

    Raises SchemaError if this is not a database of schema version 32 with all tables and columns, or one that can't
    be used however long one waits, and the errors of the driver if it is away.
    """
    if file := missing_file(database):
        raise SchemaError(f"there is no database file {file}; {_MIGRATE}")
    try:
        return _check_schema(database)
    except DATABASE_ERRORS as error:
        if is_refused_for_good(error):
            raise SchemaError(f"the database can't be used: {describe(error)}") from error
        raise


def require_schema(database: Database) -> None:
    """Do what `check_schema` does, at the start of a process: steps that are missing are worth one warning."""
    if pending := check_schema(database):
        log.warning("steps are missing in the schema, run `aggregator-consumer migrate`", missing=pending)


def _check_schema(database: Database) -> list[str]:
    _refuse_closed_schema(database)
    version = schema_version(database)
    if version is None:
        found = [table for table in _our_tables() if table in database.get_tables()]
        if found:
            raise SchemaError(f"no table migration_info beside {', '.join(found)}: not a known database")
        if _recorded_steps(database):
            raise SchemaError("aggregator_migration holds steps whose tables are missing: not a known database")
        raise SchemaError(f"the database has no schema yet; {_MIGRATE}")
    if version == 0 and _is_fresh(database):
        raise SchemaError(f"the database has no schema yet; {_MIGRATE}")
    _refuse_other_versions(version)
    _refuse_other_shapes(database)
    return _pending_steps(database)


def migrate(database: Database) -> list[str]:
    """Bring a fresh database to our schema, or continue where a broken run ended; return the steps done.

    Raises SchemaError, before anything is changed, if the database is neither fresh nor ours. Two runs at once
    wait for each other.
    """
    with _one_at_a_time(database):
        if not _is_fresh(database) or _recorded_steps(database):
            pending = check_schema(database)
            if "0001_schema_32" in pending:
                raise SchemaError(
                    "the database belongs to an existing deployment (schema version 32 without the steps of this"
                    " program), which this version of `migrate` does not change; `run` and `serve` use it as it is"
                )
        runner = Runner(database, str(_STEPS))
        # existing tools and other versions of this program find the steps in a table of this form
        runner.History = AggregatorMigration
        with database.bind_ctx([AggregatorMigration]):
            steps: list[str] = runner.up()
    if isinstance(database, SqliteDatabase):
        _use_write_ahead_log(database)
    return steps


def schema_version(database: Database) -> int | None:
    """Return `migration_info.version`, None if there is no such table.

    Raises SchemaError if the table has not exactly one row.
    """
    if "migration_info" not in database.get_tables():
        return None
    rows = [row[0] for row in database.execute_sql("SELECT version FROM migration_info").fetchall()]
    if len(rows) != 1:
        found = "no row" if not rows else f"{len(rows)} rows"
        raise SchemaError(f"table migration_info has {found}, expected exactly one")
    return int(rows[0])


def _our_tables() -> list[str]:
    return [model._meta.table_name for model in TABLES if model is not MigrationInfo]


def _is_fresh(database: Database) -> bool:
    tables = database.get_tables()
    return schema_version(database) in (None, 0) and not any(table in tables for table in _our_tables())


def _refuse_closed_schema(database: Database) -> None:
    """Without a right to `public` its tables look as if they were not there."""
    if isinstance(database, PostgresqlDatabase) and database.execute_sql("SELECT current_schema()").fetchone() == (
        None,
    ):
        raise SchemaError("the database can't be used: there is no schema public, or the role may not use it")


def _refuse_other_versions(version: int) -> None:
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"found schema version {version}, needs {SCHEMA_VERSION}; bring the database to {SCHEMA_VERSION} with"
            " the tools of the existing deployment first"
        )
    if version > SCHEMA_VERSION:
        raise SchemaError(f"found schema version {version}, newer than this program knows ({SCHEMA_VERSION})")


def _refuse_other_shapes(database: Database) -> None:
    tables = database.get_tables()
    missing = []
    for model in TABLES:
        table = model._meta.table_name
        if table not in tables:
            missing.append(f"table {table}")
            continue
        columns = _column_names(database, table)
        missing += [f"column {table}.{column}" for column in model._meta.columns if column not in columns]
    if missing:
        raise SchemaError(f"schema version {SCHEMA_VERSION}, but missing: {', '.join(missing)}")


def _column_names(database: Database, table: str) -> set[str]:
    """Return the columns of a table, also those that the role has no right to: peewee is told of the others alone."""
    if not isinstance(database, PostgresqlDatabase):
        return {column.name for column in database.get_columns(table)}
    rows = database.execute_sql(
        "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid ="
        " (SELECT oid FROM pg_class WHERE relname = %s AND relnamespace = current_schema()::regnamespace)",
        (table,),
    )
    return {name for (name,) in rows.fetchall()}


def _pending_steps(database: Database) -> list[str]:
    steps = [path.stem for path in sorted(_STEPS.glob("[0-9]*.py"))]
    done = _recorded_steps(database)
    if unknown := sorted(done - set(steps)):
        raise SchemaError(f"aggregator_migration holds {', '.join(unknown)}: made by a newer version")
    return [step for step in steps if step not in done]


def _recorded_steps(database: Database) -> set[str]:
    if AggregatorMigration._meta.table_name not in database.get_tables():
        return set()
    return {row[0] for row in database.execute_sql("SELECT name FROM aggregator_migration").fetchall()}


def _use_write_ahead_log(database: SqliteDatabase) -> None:
    """Let readers go on while somebody writes; the file remembers it.

    The switch does not wait for another one of the same file, whatever the time-out of the connection.
    """
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8, None):
        try:
            database.execute_sql("PRAGMA journal_mode = wal")
        except DATABASE_ERRORS:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    if not isinstance(database, PostgresqlDatabase):
        with database.atomic("IMMEDIATE"):
            yield
        return
    database.execute_sql("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    try:
        yield
    finally:
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (_ADVISORY_LOCK,))
