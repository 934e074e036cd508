"""Reads and empties all tables of a database, the same on every engine."""

from datetime import datetime
from typing import Any

from peewee import Database, DateTimeField

from libaggregator.storage.models import TABLES, MigrationInfo

Tables = dict[str, list[tuple[Any, ...]]]


def read_tables(database: Database, without: frozenset[str] = frozenset()) -> Tables:
    """Return all rows of all tables, sorted; `without` names columns to leave out (`table.column`)."""
    return {model._meta.table_name: _read(database, model, without) for model in TABLES}


def empty_tables(database: Database) -> None:
    """Delete all rows but the version of the schema."""
    for model in reversed(TABLES):
        if model is not MigrationInfo:
            database.execute_sql(f"DELETE FROM {model._meta.table_name}")


def _read(database: Database, model: Any, without: frozenset[str]) -> list[tuple[Any, ...]]:
    table = model._meta.table_name
    columns = [field for field in model._meta.sorted_fields if f"{table}.{field.column_name}" not in without]
    names = ", ".join(field.column_name for field in columns)
    rows = database.execute_sql(f"SELECT {names} FROM {table}").fetchall()
    converted = [tuple(map(_value, columns, row)) for row in rows]
    return sorted(converted, key=repr)


def _value(field: Any, value: Any) -> Any:
    if isinstance(field, DateTimeField) and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
