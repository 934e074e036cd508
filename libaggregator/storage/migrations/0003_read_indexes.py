"""The three indexes that reads need (`docs/schema.md`, section 5)."""

from peewee import Database

from libaggregator.storage import catalogue
from libaggregator.storage.session import Session

INDEXES = {
    "recommendation_org_id_rule_id_idx": ("recommendation", ("org_id", "rule_id")),
    "cluster_rule_toggle_org_id_rule_id_error_key_idx": ("cluster_rule_toggle", ("org_id", "rule_id", "error_key")),
    "cluster_user_rule_disable_feedback_user_id_idx": ("cluster_user_rule_disable_feedback", ("user_id",)),
}
"""Table and columns of each."""


def create(database: Database) -> None:
    """Make the indexes."""
    for name in INDEXES:
        database.execute_sql(f"CREATE INDEX {definition(name)}")


def obstacles(database: Database) -> list[str]:
    """Return the tables that belong to others, and our names that something else has."""
    found = catalogue.obstacles_to_altering(database, [table for table, _ in INDEXES.values()])
    found += catalogue.obstacles_to_creating(database)
    for name, (table, columns) in INDEXES.items():
        index = catalogue.index_named(database, name)
        if index and (index.table, index.columns, index.is_plain) != (table, columns, True):
            found.append(f"{name} is there and is not the index on {table} ({', '.join(columns)})")
    return found


def plan(database: Database) -> list[str]:
    """Tell which indexes are made, on tables of which size."""
    sizes = catalogue.sizes(database, [table for table, _ in INDEXES.values()])
    return [
        f"index {definition(name)}: beside reads and writes, waits for open transactions"
        f" (the table has {sizes[INDEXES[name][0]].table / 1e6:,.0f} MB)"
        for name in _missing(database)
    ]


def adopt(session: Session) -> None:
    """Make the indexes beside reads and writes; what a broken run left is made again."""
    for name in _missing(session.database):
        if catalogue.index_named(session.database, name):
            session.tell(f"dropping index {name}, which was not finished")
            session.execute(f"DROP INDEX CONCURRENTLY {name}")
        session.tell(f"making index {name}, waiting for transactions that are older")
        session.execute(f"CREATE INDEX CONCURRENTLY {definition(name)}")


def definition(name: str) -> str:
    """Return the name of an index, and what it is on, as SQL."""
    table, columns = INDEXES[name]
    return f"{name} ON {table} ({', '.join(columns)})"


def _missing(database: Database) -> list[str]:
    """Return the indexes that are not there, or can't be used."""
    return [name for name in INDEXES if not ((index := catalogue.index_named(database, name)) and index.is_valid)]
