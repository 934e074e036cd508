"""What differs between the engines in writing many rows: parameter marks, locks, and the way to send rows."""

from peewee import Database, PostgresqlDatabase

from consumer_service.engines.base import Conflict, Engine, Row
from consumer_service.engines.postgresql import PostgresqlEngine
from consumer_service.engines.sqlite import SqliteEngine

__all__ = ["MANY", "Conflict", "Engine", "Row", "engine_for"]

MANY = 20
"""Rows from which on COPY, with its further steps, is quicker than one statement that holds them as text."""


def engine_for(database: Database, many: int = MANY, *, rehearsal: bool = False) -> Engine:
    """Return the engine that fits a database; from `many` rows on PostgreSQL gets them by COPY.

    A rehearsal does all that the transactions demand, and undoes each of them instead of committing it.
    """
    if isinstance(database, PostgresqlDatabase):
        return PostgresqlEngine(database, many, not rehearsal)
    return SqliteEngine(database, not rehearsal)
