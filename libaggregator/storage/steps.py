"""The steps of `aggregator-consumer migrate`: which there are, and which are recorded."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Protocol, cast

from peewee import Database

from libaggregator.storage import migrations
from libaggregator.storage.models import AggregatorMigration
from libaggregator.storage.session import Session
from libaggregator.storage.shape import SchemaError, refuse_other_records

REWRITE = "0002_bigint"
"""The step that keeps everybody out of a table for as long as it takes to write it anew."""


_ROOM = "0004_room_for_updates"


class Step(Protocol):
    """A module of `migrations`."""

    def create(self, database: Database) -> None:
        """Do it in a database that the step before has just made, within a transaction."""

    def obstacles(self, database: Database) -> list[str]:
        """Return what would keep `adopt` from succeeding, one line each; nothing is changed."""

    def plan(self, database: Database) -> list[str]:
        """Return what `adopt` would do and what that costs, one line each; nothing is changed."""

    def adopt(self, session: Session) -> None:
        """Do it in a database on PostgreSQL that is in use, outside of any transaction.

        Looks at the catalogue first, so that it goes on where a broken run ended.
        """


def all_steps() -> dict[str, Step]:
    """Return all steps by name, in the order in which they are done."""
    names = sorted(module.name for module in pkgutil.iter_modules(migrations.__path__))
    return {name: cast(Step, importlib.import_module(f"{migrations.__name__}.{name}")) for name in names}


def pending_steps(database: Database) -> list[str]:
    """Return the names of the steps that are not recorded; SchemaError if one is recorded that we do not know."""
    steps = all_steps()
    done = recorded_steps(database)
    if unknown := sorted(done - set(steps)):
        raise SchemaError(f"aggregator_migration holds {', '.join(unknown)}: made by a newer version")
    return [step for step in steps if step not in done]


def in_order_of_adoption(names: Iterable[str]) -> list[str]:
    """Return steps in the order in which they are done in a database that has rows.

    The rewrite fills all pages anew: it comes after the step that says how full, and before there are more indexes.
    """
    return sorted(names, key=lambda name: (name >= REWRITE and name != _ROOM, name))


def recorded_steps(database: Database) -> set[str]:
    """Return the names in `aggregator_migration`, none if there is no such table; SchemaError if it is another one."""
    refuse_other_records(database)
    if AggregatorMigration._meta.table_name not in database.get_tables():
        return set()
    return {row[0] for row in database.execute_sql("SELECT name FROM aggregator_migration").fetchall()}


def record(database: Database, name: str) -> None:
    """Note that a step is done; the first one makes the table for it."""
    with database.bind_ctx([AggregatorMigration]):
        AggregatorMigration.create_table()
        AggregatorMigration.create(name=name)
