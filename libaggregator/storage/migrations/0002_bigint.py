"""Columns that are too narrow for every organization and offset become `bigint` (`docs/schema.md`, section 4).

A database that `0001_schema_32` made has them so from the start. In one of an existing deployment PostgreSQL writes
each table and its indexes anew, and nobody reads or writes the table meanwhile.
"""

from itertools import chain, repeat

from peewee import Database

from libaggregator.storage import catalogue
from libaggregator.storage.faults import DATABASE_ERRORS, sqlstate_of
from libaggregator.storage.models import FILLFACTORS, WIDENED
from libaggregator.storage.session import Session

# above `deadlock_timeout` (1 s by default), after which an autovacuum gives way
LOCK_TIMEOUT = "2s"
PAUSES = (1.0, 2.0, 5.0, 10.0)
_IN_USE = ("55P03", "40P01")  # lock_not_available, deadlock_detected


def create(database: Database) -> None:
    """Do nothing."""


def obstacles(database: Database) -> list[str]:
    """Return the tables that belong to others, and what uses a column that has to change."""
    found = catalogue.obstacles_to_altering(database, WIDENED)
    may_try = not found
    for table, column in _narrow(database).items():
        found += catalogue.obstacles_to_type(database, table, column)
        if may_try:
            found += catalogue.obstacles_to_remaking(database, table, column)
    return found


def plan(database: Database) -> list[str]:
    """Tell which tables are written anew, and what disk that takes."""
    narrow = _narrow(database)
    sizes = catalogue.sizes(database, narrow)
    lines = [
        f"{table}.{column} to bigint: the table ({_megabytes(sizes[table].table)}) and its indexes"
        f" ({_megabytes(sizes[table].indexes)}) are written anew, nobody reads or writes it meanwhile"
        for table, column in narrow.items()
    ]
    lines.append(f"VACUUM (ANALYZE) of {', '.join(WIDENED)}: keeps out nobody")
    if narrow:
        needed = {
            table: size.table * 100 // FILLFACTORS.get(table, 100) + size.indexes for table, size in sizes.items()
        }
        lines.append(
            f"needs {_megabytes(max(needed.values()))} of free disk, and up to {_megabytes(sum(needed.values()))} more"
            " for the write-ahead log"
        )
    return lines


def adopt(session: Session) -> None:
    """Widen one table after another, and let the planner know them again."""
    for table in WIDENED:
        if table in _narrow(session.database):
            _widen(session, table)
        session.tell(f"VACUUM (ANALYZE) of table {table}")
        session.execute(f"VACUUM (ANALYZE) {table}")


def _widen(session: Session, table: str) -> None:
    """Write one table anew, as soon as nobody uses it.

    Whoever comes while it waits for the lock waits behind it, so it gives up soon, lets them pass, and tries again.
    """
    size = catalogue.sizes(session.database, [table])[table]
    session.tell(f"writing table {table} anew ({_megabytes(size.total)} with indexes), it is locked meanwhile")
    session.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    for pause in chain(PAUSES, repeat(PAUSES[-1])):
        try:
            session.execute(f"ALTER TABLE {table} ALTER COLUMN {WIDENED[table]} TYPE bigint")
        except DATABASE_ERRORS as error:
            if sqlstate_of(error) not in _IN_USE:
                raise
        else:
            break
        users = ", ".join(catalogue.holders(session.database, table)) or "somebody"
        session.tell(f"table {table} is in use by {users}, trying again in {pause:g} s")
        session.pause(pause)
    session.execute("SET lock_timeout = 0")


def _narrow(database: Database) -> dict[str, str]:
    """Return the columns that are not widened yet, by table."""
    types = catalogue.column_types(database)
    return {table: column for table, column in WIDENED.items() if types[table][column] != "bigint"}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
