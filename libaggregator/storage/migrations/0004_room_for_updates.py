"""Pages of the tables that every report changes keep room for the changed rows (`docs/schema.md`, section 6).

In the database of an existing deployment it is done before `0002_bigint`, which fills all pages anew.
"""

from peewee import Database, PostgresqlDatabase

from libaggregator.storage import catalogue
from libaggregator.storage.models import FILLFACTORS
from libaggregator.storage.session import Session


def create(database: Database) -> None:
    """Tell PostgreSQL, for the pages that it fills from here on; SQLite changes rows where they are."""
    if isinstance(database, PostgresqlDatabase):
        for statement in _statements():
            database.execute_sql(statement)


def obstacles(database: Database) -> list[str]:
    """Return the tables that belong to others."""
    return catalogue.obstacles_to_altering(database, FILLFACTORS)


def plan(database: Database) -> list[str]:
    """Tell what is set."""
    return [f"fillfactor of {table} to {value}: a moment, keeps out nobody" for table, value in FILLFACTORS.items()]


def adopt(session: Session) -> None:
    """Tell PostgreSQL, for the pages that it fills from here on; those that are full stay so."""
    for statement in _statements():
        session.execute(statement)


def _statements() -> list[str]:
    return [f"ALTER TABLE {table} SET (fillfactor = {value})" for table, value in FILLFACTORS.items()]
