"""Databases for tests, opened as the consumer opens them."""

from pathlib import Path
from typing import Any

from peewee import Database

from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_writer
from libaggregator.storage.schema import migrate
from tests.support.tables import empty_tables

SQLITE_FILE = "aggregator.db"


def sqlite_url_in(folder: Path) -> str:
    """Return the URL of an SQLite file in a folder, which does not exist yet."""
    return f"sqlite:///{folder}/{SQLITE_FILE}"


def open_database(url: str, **settings: Any) -> Database:
    """Open a database as the consumer does; `settings` are further ones of the section `database`."""
    return open_writer(DatabaseSettings(url=Secret(url), **settings), "tests")


def migrate_database(url: str, *statements: str) -> str:
    """Make the schema in an empty database, run statements in it, and return its URL."""
    database = open_database(url)
    migrate(database)
    for statement in statements:
        database.execute_sql(statement)
    database.close()
    return url


def emptied(url: str) -> str:
    """Delete all rows of a migrated database, and return its URL."""
    database = open_database(url)
    with database.atomic():
        empty_tables(database)
    database.close()
    return url
