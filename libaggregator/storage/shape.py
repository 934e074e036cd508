"""What is in a database, and whether that is a schema we know (`docs/schema.md`, section 4)."""

from peewee import Database, PostgresqlDatabase

from libaggregator.storage.catalogue import column_types, unique_keys
from libaggregator.storage.models import SCHEMA_VERSION, TABLES, WIDENED, MigrationInfo

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


def refuse_other_shapes(database: Database) -> None:
    """Raise SchemaError if a table or a column is missing, on PostgreSQL also a type or a unique constraint."""
    on_postgresql = isinstance(database, PostgresqlDatabase)
    columns = column_types(database) if on_postgresql else _columns_on_sqlite(database)
    problems = []
    for model in TABLES:
        table = model._meta.table_name
        if table not in columns:
            problems.append(f"missing: table {table}")
            continue
        for name, field in model._meta.columns.items():
            expected = _TYPES[field.field_type]
            found = columns[table].get(name)
            if found is None:
                problems.append(f"missing: column {table}.{name} ({expected})")
            elif on_postgresql and found != expected and not (WIDENED.get(table) == name and found == "integer"):
                problems.append(f"column {table}.{name} is {found}, needs {expected}")
    if on_postgresql:
        keys = unique_keys(database)
        problems += [
            f"missing: unique constraint {name} on {table} ({', '.join(key)})"
            for name, (table, key) in _UNIQUE.items()
            if table in columns and frozenset(key) not in keys[table]
        ]
    if problems:
        raise SchemaError(f"schema version {SCHEMA_VERSION}, but {'; '.join(problems)}")


def _columns_on_sqlite(database: Database) -> dict[str, dict[str, str]]:
    """Return the columns of all tables; their types say little there."""
    return {
        table: {column.name: column.data_type for column in database.get_columns(table)}
        for table in database.get_tables()
    }
