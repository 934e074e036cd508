"""Pages of the tables that every report changes keep room for the changed rows (`docs/schema.md`, section 6)."""

from typing import Any

from peewee import Database, PostgresqlDatabase

STATEMENTS = (
    "ALTER TABLE recommendation SET (fillfactor = 50)",
    "ALTER TABLE report SET (fillfactor = 70)",
)


def up(migrator: Any, database: Database) -> None:
    """Tell PostgreSQL, for the pages that it fills from here on; SQLite changes rows where they are."""
    if isinstance(database, PostgresqlDatabase):
        for statement in STATEMENTS:
            database.execute_sql(statement)
