"""What is in a database, and whether that is a schema we know (`docs/schema.md`, section 4)."""

from collections.abc import Mapping

from peewee import Database, Model, PostgresqlDatabase

from libaggregator.storage.catalogue import Column, columns_of_tables, is_name_taken, unique_keys
from libaggregator.storage.models import (
    SCHEMA_VERSION,
    TABLES,
    WIDENED,
    AggregatorMigration,
    ConsumerError,
    MigrationInfo,
    Recommendation,
    Report,
    ReportInfo,
    RuleHit,
)

_TYPES = {
    "BIGINT": "bigint",
    "INT": "integer",
    "SMALLINT": "smallint",
    "VARCHAR": "character varying",
    "TEXT": "text",
    "DATETIME": "timestamp without time zone",
}
"""What PostgreSQL calls the types of the models."""

_UNIQUE = {
    "report_pkey": ("report", ("org_id", "cluster")),
    "report_cluster_key": ("report", ("cluster",)),
    "rule_hit_pkey": ("rule_hit", ("cluster_id", "org_id", "rule_fqdn", "error_key")),
    "recommendation_pk": ("recommendation", ("org_id", "cluster_id", "rule_fqdn", "error_key")),
    "report_info_pkey": ("report_info", ("org_id", "cluster_id")),
    "report_info_cluster_id_key": ("report_info", ("cluster_id",)),
    "consumer_error_pkey": ("consumer_error", ("topic", "partition", "topic_offset")),
}
"""What the consumer relies on: by `ON CONFLICT`, and for finding that another one was faster."""

_FILLED: tuple[type[Model], ...] = (Report, RuleHit, Recommendation, ReportInfo, ConsumerError)
"""The tables into which the consumer inserts."""

_NULL_FOR_SOME = (("report", "gathered_at"), ("consumer_error", "key"), ("consumer_error", "message"))
"""Columns of these that have no value for some messages; all others always have one."""


class SchemaError(Exception):
    """The database has a schema that this program must not touch; the text says what to do."""


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


def tables_of_ours(database: Database) -> list[str]:
    """Return those of our tables that are there, without `migration_info`."""
    tables = database.get_tables()
    ours = [model._meta.table_name for model in TABLES if model is not MigrationInfo]
    return [table for table in ours if table in tables]


def is_fresh(database: Database) -> bool:
    """Whether nothing of ours is there, or a `migration_info` that was prepared and never filled."""
    return schema_version(database) in (None, 0) and not tables_of_ours(database)


def refuse_closed_schema(database: Database) -> None:
    """Raise SchemaError if the role has no right to `public`, whose tables look then as if they were not there."""
    if isinstance(database, PostgresqlDatabase) and database.execute_sql("SELECT current_schema()").fetchone() == (
        None,
    ):
        raise SchemaError("the database can't be used: there is no schema public, or the role may not use it")


def refuse_other_versions(version: int) -> None:
    """Raise SchemaError if this is not the version that we know."""
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"found schema version {version}, needs {SCHEMA_VERSION}; bring the database to {SCHEMA_VERSION} with"
            " the tools of the existing deployment first"
        )
    if version > SCHEMA_VERSION:
        raise SchemaError(f"found schema version {version}, newer than this program knows ({SCHEMA_VERSION})")


def refuse_other_shapes(database: Database, *, to_write: bool) -> None:
    """Raise SchemaError if a table or a column is missing, on PostgreSQL also a type or a unique constraint.

    With `to_write` also if a column demands a value that the consumer does not have.
    """
    columns = _columns_of(database)
    problems = []
    for model in TABLES:
        problems += _deviations(model, columns, database)
    if isinstance(database, PostgresqlDatabase):
        keys = unique_keys(database)
        problems += [
            f"missing: unique constraint {name} on {table} ({', '.join(key)})"
            for name, (table, key) in _UNIQUE.items()
            if table in columns and frozenset(key) not in keys[table]
        ]
    if to_write:
        for model in _FILLED:
            problems += _demands(model, columns)
    if problems:
        raise SchemaError(f"schema version {SCHEMA_VERSION}, but {'; '.join(problems)}")


def refuse_other_records(database: Database) -> None:
    """Raise SchemaError if the name of the table of our steps belongs to something else."""
    name = AggregatorMigration._meta.table_name
    columns = _columns_of(database)
    problems = []
    if name in columns:
        problems = _deviations(AggregatorMigration, columns, database) + _demands(AggregatorMigration, columns)
    elif isinstance(database, PostgresqlDatabase) and is_name_taken(database, name):
        problems = [f"{name} is no table"]
    if problems:
        raise SchemaError(f"{'; '.join(problems)}: {name} is not the table of this program, rename or drop it")


def _deviations(model: type[Model], columns: Mapping[str, Mapping[str, Column]], database: Database) -> list[str]:
    """Return what is missing in a table, or of another type."""
    table = model._meta.table_name
    if table not in columns:
        return [f"missing: table {table}"]
    problems = []
    for name, field in model._meta.columns.items():
        expected = _TYPES[field.field_type]
        found = columns[table].get(name)
        if found is None:
            problems.append(f"missing: column {table}.{name} ({expected})")
        elif isinstance(database, PostgresqlDatabase) and found.kind not in (expected, _narrow(table, name)):
            problems.append(f"column {table}.{name} is {found.kind}, needs {expected}")
    return problems


def _demands(model: type[Model], columns: Mapping[str, Mapping[str, Column]]) -> list[str]:
    """Return the columns of a table that refuse what this program inserts, whatever the values."""
    table = model._meta.table_name
    problems = []
    for name, column in columns.get(table, {}).items():
        if name not in model._meta.columns and column.is_required and not column.has_default:
            problems.append(
                f"column {table}.{name} is NOT NULL without a default, and this program does not fill it:"
                " give it a default or allow NULL"
            )
        elif (table, name) in _NULL_FOR_SOME and column.is_required:
            problems.append(f"column {table}.{name} is NOT NULL, and some messages have no value for it: allow NULL")
    return problems


def _narrow(table: str, column: str) -> str | None:
    """Return the type that a column has until it is widened, None if it never is."""
    return "integer" if WIDENED.get(table) == column else None


def _columns_of(database: Database) -> dict[str, dict[str, Column]]:
    """Return the columns of all tables; types say little on SQLite."""
    if isinstance(database, PostgresqlDatabase):
        return columns_of_tables(database)
    return {
        table: {
            column.name: Column(column.data_type, not column.null, column.default is not None or column.primary_key)
            for column in database.get_columns(table)
        }
        for table in database.get_tables()
    }
