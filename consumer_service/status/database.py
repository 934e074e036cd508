"""What the database tells, each statement bounded in time: counting a large table can take minutes on PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

from peewee import Database, PostgresqlDatabase

from consumer_service.engines import Row
from consumer_service.status.model import DatabaseStatus, Problem, Rows, Schema
from libaggregator.messages import Reason
from libaggregator.storage.faults import DATABASE_ERRORS, is_cancelled, is_want_of_right
from libaggregator.storage.models import SCHEMA_VERSION, TABLES, MigrationInfo
from libaggregator.storage.schema import check_schema

COUNT_SECONDS = 3.0
"""For the count of one table; above it, the estimate of the database has to do."""

SCAN_SECONDS = 30.0
"""For what no index answers: when results were stored, and what was rejected lately."""

OTHER = "other"
"""The reason of rows that were written by an existing deployment, in free text."""

_COUNT = "SELECT count(*) FROM {table}"
_ESTIMATE = "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)"
_RESULTS = "SELECT min(reported_at), max(reported_at) FROM report"
_WITH_A_DATE = " WHERE reported_at >= '0001-01-01' AND reported_at < '10000-01-01'"
"""On PostgreSQL, whose times can be `infinity` or of a year that Python does not have."""
_REJECTED = "SELECT {reason}, count(*) FROM consumer_error WHERE consumed_at >= %s GROUP BY 1"


def read_database(database: Database, now: datetime, problems: list[Problem]) -> DatabaseStatus:
    """Ask the database at an instant (UTC, without a zone); what takes too long is None, and one of the problems.

    Raises SchemaError if it has another schema than ours, and one of DATABASE_ERRORS if it is away.
    """
    missing = check_schema(database)
    tables = {name: _count(database, name) for name in _table_names()}
    of_postgresql = isinstance(database, PostgresqlDatabase)
    results = _within(database, SCAN_SECONDS, _RESULTS + (_WITH_A_DATE if of_postgresql else ""))
    since = now - timedelta(hours=1)
    rejected = _within(database, SCAN_SECONDS, _REJECTED.format(reason=_reason()), since)
    for what, found in (("results", results), ("rejected messages", rejected)):
        if found is None:
            problems.append(Problem("database", f"{what}: reading them took longer than {SCAN_SECONDS:g} s"))
    oldest, newest = results[0] if results else (None, None)
    return DatabaseStatus(
        "postgresql" if of_postgresql else "sqlite",
        Schema(SCHEMA_VERSION, missing),
        tables,
        _as_time(oldest),
        _as_time(newest),
        None if rejected is None else dict(sorted(rejected)),
    )


def _table_names() -> list[str]:
    return [model._meta.table_name for model in TABLES if model is not MigrationInfo]


def _count(database: Database, table: str) -> Rows:
    """Count a table, or estimate it if that takes long or the role may not."""
    try:
        found = _within(database, COUNT_SECONDS, _COUNT.format(table=table))
    except DATABASE_ERRORS as error:
        if not is_want_of_right(error):
            raise
        found = None
    if found is not None:
        return Rows(int(found[0][0]), exact=True)
    ((estimate,),) = database.execute_sql(_ESTIMATE, (f"public.{table}",)).fetchall()
    # below zero: it was never analysed
    return Rows(int(estimate) if estimate >= 0 else None, exact=False)


def _within(database: Database, seconds: float, statement: str, *values: Any) -> list[Row] | None:
    """Return what a statement finds, None if it takes longer; SQLite is given the time that it needs."""
    try:
        with database.atomic():
            if isinstance(database, PostgresqlDatabase):
                database.execute_sql("SELECT set_config('statement_timeout', %s, true)", (str(round(seconds * 1000)),))
            text = statement.replace("%s", database.param)
            rows: list[Row] = database.execute_sql(text, values).fetchall()
            return rows
    except DATABASE_ERRORS as error:
        if is_cancelled(error):
            return None
        raise


def _reason() -> str:
    """Return the reason of a row as SQL: what stands before its detail if that is one of ours."""
    cases = [f"WHEN substr(error, 1, {len(reason) + 2}) = '{reason}: ' THEN '{reason}'" for reason in Reason]
    return f"CASE {' '.join(cases)} ELSE '{OTHER}' END"


def _as_time(value: datetime | str | None) -> datetime | None:
    """Return a time with its zone; SQLite holds times as text."""
    if value is None:
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.replace(tzinfo=UTC)
