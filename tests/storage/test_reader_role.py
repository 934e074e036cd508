"""The role with which the API's tests read from PostgreSQL: it sees every table and can change none."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege

from libaggregator.storage.models import TABLES, AggregatorMigration
from tests.support.postgresql import with_select_only

NAMES = sorted(model._meta.table_name for model in (*TABLES, AggregatorMigration))


@pytest.fixture(scope="module")
def cursor(shared_url: str) -> Iterator[Any]:
    """Yield a cursor of the role, in a session that is not read-only by itself."""
    connection = psycopg2.connect(with_select_only(shared_url))
    connection.autocommit = True
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


@pytest.mark.parametrize("table", NAMES)
def test_it_may_select_and_nothing_else(cursor: Any, table: str) -> None:
    allowed = []
    for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
        cursor.execute("SELECT has_table_privilege(%s, %s)", (table, privilege))
        allowed += [privilege] if cursor.fetchone()[0] else []
    assert allowed == ["SELECT"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO migration_info (version) VALUES (33)",
        "UPDATE report SET report = '{}'",
        "DELETE FROM cluster_rule_toggle",
        "TRUNCATE advisor_ratings",
        "SELECT * FROM rule_hit FOR UPDATE",
        "DROP INDEX recommendation_org_id_rule_id_idx",
    ],
)
def test_a_statement_that_changes_anything_is_refused(cursor: Any, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        cursor.execute(statement)
