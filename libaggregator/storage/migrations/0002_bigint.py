"""Columns that are too narrow for every organization and offset become `bigint` (`docs/schema.md`, section 4).

A database that `0001_schema_32` made has them so from the start.
"""

from typing import Any

from peewee import Database


def up(migrator: Any, database: Database) -> None:
    """Do nothing: every database that gets here was made by the step before."""
