"""Which schema a database has, and how it gets ours (`docs/schema.md`, section 4)."""

import time

import structlog
from peewee import Database, PostgresqlDatabase, SqliteDatabase

from libaggregator.storage.catalogue import (
    obstacle_to_working,
    obstacles_to_altering,
    obstacles_to_creating,
    obstacles_to_looking,
    obstacles_to_recording,
)
from libaggregator.storage.connections import missing_file
from libaggregator.storage.faults import DATABASE_ERRORS, describe, is_refused_for_good
from libaggregator.storage.models import WIDENED, AggregatorMigration
from libaggregator.storage.session import Session
from libaggregator.storage.shape import (
    SchemaError,
    is_fresh,
    refuse_closed_schema,
    refuse_other_shapes,
    refuse_other_versions,
    schema_version,
    tables_of_ours,
)
from libaggregator.storage.steps import REWRITE, all_steps, in_order_of_adoption, pending_steps, record, recorded_steps

__all__ = ["SchemaError", "check_schema", "migrate", "plan", "require_schema", "schema_version"]

log = structlog.get_logger(__name__)

_MIGRATE = "run `aggregator-consumer migrate` first"
_FIRST_STEP = "0001_schema_32"


def check_schema(database: Database, *, to_write: bool = True) -> list[str]:
    """Return the names of our steps that are still to do, none if all are.

    Who does not write (`to_write`) can use a database whose tables demand columns that the consumer does not fill.
    Raises SchemaError if this is not a database of schema version 32 with all it has to have, or one that can't be
    used however long one waits, and the errors of the driver if it is away.
    """
    if file := missing_file(database):
        raise SchemaError(f"there is no database file {file}; {_MIGRATE}")
    try:
        return _check_schema(database, to_write)
    except DATABASE_ERRORS as error:
        if is_refused_for_good(error):
            raise SchemaError(f"the database can't be used: {describe(error)}") from error
        raise


def require_schema(database: Database, *, to_write: bool = True) -> None:
    """Do what `check_schema` does, at the start of a process: steps that are missing are worth one warning."""
    if pending := check_schema(database, to_write=to_write):
        log.warning("steps are missing in the schema, run `aggregator-consumer migrate`", missing=pending)


def migrate(database: Database, *, skip_rewrite: bool = False, session: Session | None = None) -> list[str]:
    """Bring a database to our schema, or continue where a broken run ended; return the steps done.

    A fresh one gets all of it; one of an existing deployment on PostgreSQL is adopted while others use it.
    `skip_rewrite` leaves out the step that keeps them out of a table. Two runs at once wait for each other.
    Raises SchemaError, before anything is changed, if the database is neither fresh nor one that can be brought there;
    MigrationStopped if the session was stopped.
    """
    session = session or Session(database)
    _refuse_unfit_session(database)
    with session.begun():
        with session.alone():
            steps = _create(session) if _is_untouched(database) else _adopt(session, skip_rewrite)
        if isinstance(database, SqliteDatabase):
            _use_write_ahead_log(database)
    return steps


def plan(database: Database, *, skip_rewrite: bool = False) -> list[str]:
    """Return what `migrate` would do and what that costs, one line each; nothing is changed.

    Raises SchemaError where `migrate` would.
    """
    if missing_file(database):
        return [f"to do: {name}" for name in all_steps()]
    _refuse_unfit_session(database)
    if _is_untouched(database):
        return [f"to do: {name}" for name in all_steps()]
    steps = all_steps()
    lines = []
    for name in _adoptable(database, skip_rewrite):
        lines += [f"to do: {name}", *(f"    {line}" for line in steps[name].plan(database))]
    if skip_rewrite and REWRITE in pending_steps(database):
        lines.append(f"left out by --skip-rewrite: {REWRITE}")
    return lines


def _refuse_unfit_session(database: Database) -> None:
    """Raise SchemaError if this session can't be used for looking and changing, whatever the tables are."""
    if not isinstance(database, PostgresqlDatabase):
        return
    if obstacle := obstacle_to_working(database):
        raise SchemaError(obstacle)
    if obstacles := obstacles_to_looking(database):
        raise SchemaError("; ".join([*obstacles, *obstacles_to_altering(database, WIDENED)]))


def _check_schema(database: Database, to_write: bool) -> list[str]:
    refuse_closed_schema(database)
    version = schema_version(database)
    if version is None:
        if found := tables_of_ours(database):
            raise SchemaError(f"no table migration_info beside {', '.join(found)}: neither empty nor a known database")
        if recorded_steps(database):
            raise SchemaError("aggregator_migration holds steps whose tables are missing: not a known database")
        raise SchemaError(f"the database has no schema yet; {_MIGRATE}")
    if version == 0 and is_fresh(database):
        raise SchemaError(f"the database has no schema yet; {_MIGRATE}")
    refuse_other_versions(version)
    refuse_other_shapes(database, to_write=to_write)
    return pending_steps(database)


def _is_untouched(database: Database) -> bool:
    return is_fresh(database) and not recorded_steps(database)


def _create(session: Session) -> list[str]:
    """Do all steps in an empty database, each in a transaction of its own."""
    database = session.database
    steps = all_steps()
    for name, step in steps.items():
        with database.atomic():
            step.create(database)
            record(database, name)
        session.tell(f"done: {name}")
    return list(steps)


def _adopt(session: Session, skip_rewrite: bool) -> list[str]:
    """Do what is missing in a database that is in use."""
    database = session.database
    pending = _adoptable(database, skip_rewrite)
    steps = all_steps()
    for name in pending:
        if isinstance(database, SqliteDatabase):
            steps[name].create(database)
        else:
            steps[name].adopt(session)
        with database.atomic():
            record(database, name)
        session.tell(f"done: {name}")
    return pending


def _adoptable(database: Database, skip_rewrite: bool) -> list[str]:
    """Return the steps that are to do, in their order; SchemaError if anything that can be known is in their way."""
    pending = in_order_of_adoption(name for name in check_schema(database) if not (skip_rewrite and name == REWRITE))
    if isinstance(database, SqliteDatabase):
        if _FIRST_STEP in pending:
            raise SchemaError(
                "an SQLite database of an existing deployment (schema version 32 without the steps of this program),"
                " which `migrate` does not change: only one on PostgreSQL is adopted"
            )
        return pending
    if not pending:
        return pending
    table = AggregatorMigration._meta.table_name
    obstacles = obstacles_to_recording(database, table)
    if table not in database.get_tables():
        obstacles += obstacles_to_creating(database)
    steps = all_steps()
    for name in pending:
        obstacles += steps[name].obstacles(database)
    if obstacles:
        raise SchemaError(f"nothing was changed: {'; '.join(dict.fromkeys(obstacles))}")
    return pending


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
