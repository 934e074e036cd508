"""What `aggregator-consumer status` tells of a database, on each engine (`docs/chores.md`)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from peewee import Database

from consumer_service.status import database as of_database
from consumer_service.status.database import read_database
from consumer_service.status.model import Problem, Rows
from libaggregator.storage.schema import SchemaError
from tests.storage.conftest import NOON
from tests.support.databases import emptied, open_database
from tests.support.messages import CLUSTERS
from tests.support.postgresql import table_locked
from tests.support.rows import CLUSTER, add, add_cluster
from tests.support.tables import empty_tables


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Yield a database without rows, on each engine in turn."""
    database = open_database(emptied(migrated_url))
    yield database
    database.close()


def test_an_empty_database_has_no_results(database: Database) -> None:
    status = read_database(database, NOON, [])
    assert (status.schema.version, status.schema.steps_missing) == (32, [])
    assert set(status.tables.values()) == {Rows(0, exact=True)}
    assert (status.oldest_result, status.newest_result, status.rejected_last_hour) == (None, None, {})


def test_rows_are_counted_and_results_are_told_by_when_they_were_stored(database: Database) -> None:
    add_cluster(database, CLUSTER, datetime(2026, 4, 1, 8))
    add_cluster(database, CLUSTERS[1], datetime(2026, 5, 1, 8, 0, 0, 250_000), last_checked_at=datetime(2020, 1, 1))
    add(database, "report", cluster="never", reported_at=None)
    status = read_database(database, NOON, [])
    counts = {table: found.rows for table, found in status.tables.items() if found.rows}
    assert counts == {"report": 3, "rule_hit": 2, "recommendation": 2, "report_info": 2}
    assert status.oldest_result == datetime(2026, 4, 1, 8, tzinfo=UTC)
    assert status.newest_result == datetime(2026, 5, 1, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01 00:00:00", "0044-03-15 00:00:00 BC"])
def test_what_is_no_date_is_neither_the_oldest_nor_the_newest_result(shared_url: str, time: str) -> None:
    database = open_database(shared_url)
    with database.atomic():
        empty_tables(database)
    add_cluster(database, CLUSTER, NOON)
    add(database, "report", cluster="never", reported_at=time)
    status = read_database(database, NOON, [])
    database.close()
    assert status.oldest_result == status.newest_result == NOON.replace(tzinfo=UTC)
    assert status.tables["report"] == Rows(2, exact=True)


def test_rejected_messages_of_the_last_hour_are_counted_by_reason_and_free_text_is_other(database: Database) -> None:
    hour = timedelta(hours=1)
    errors = [
        ("not_json: x", NOON),
        ("not_json: too_large: y", NOON - hour),
        ("too_large: z", NOON - timedelta(minutes=1)),
        ("too_large", NOON),
        ("not_jsonx: x", NOON),
        ("improper message", NOON),
        ("bad_report: old", NOON - hour - timedelta(microseconds=1)),
    ]
    for offset, (error, consumed_at) in enumerate(errors):
        add(database, "consumer_error", topic_offset=offset, error=error, consumed_at=consumed_at)
    status = read_database(database, NOON, [])
    assert status.rejected_last_hour == {"not_json": 2, "other": 3, "too_large": 1}
    assert status.tables["consumer_error"] == Rows(7, exact=True)


def test_missing_steps_are_named_and_another_schema_is_not_asked(database: Database) -> None:
    with database.atomic() as transaction:
        database.execute_sql("DELETE FROM aggregator_migration WHERE name = '0003_read_indexes'")
        assert read_database(database, NOON, []).schema.steps_missing == ["0003_read_indexes"]
        database.execute_sql("UPDATE migration_info SET version = 31")
        with pytest.raises(SchemaError, match="found schema version 31"):
            read_database(database, NOON, [])
        transaction.rollback()


class TestTime:
    """On PostgreSQL, where counting takes long."""

    @pytest.fixture
    def slow(self, shared_url: str) -> Iterator[Database]:
        """Yield a database with an analysed table that nobody can read for a while."""
        database = open_database(shared_url)
        with database.atomic():
            empty_tables(database)
        for name in CLUSTERS[:2]:
            add_cluster(database, name)
        database.execute_sql("ANALYZE report")
        with table_locked(shared_url, "report, consumer_error", "ACCESS EXCLUSIVE"):
            yield database
        database.close()

    def test_a_count_that_takes_long_is_an_estimate_and_says_so(
        self, slow: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(of_database, "COUNT_SECONDS", 0.05)
        monkeypatch.setattr(of_database, "SCAN_SECONDS", 0.05)
        problems: list[Problem] = []
        status = read_database(slow, NOON, problems)
        assert status.tables["report"] == Rows(2, exact=False)
        assert status.tables["rule_hit"] == Rows(2, exact=True)
        assert (status.newest_result, status.rejected_last_hour) == (None, None)
        assert [one.problem for one in problems] == [
            "results: reading them took longer than 0.05 s",
            "rejected messages: reading them took longer than 0.05 s",
        ]

    def test_a_table_that_was_never_analysed_has_no_estimate(self, shared_url: str) -> None:
        database = open_database(shared_url)
        database.execute_sql("CREATE TABLE fresh (n integer)")
        database.execute_sql("CREATE ROLE nobody_else")
        with database.atomic() as transaction:
            database.execute_sql("SET LOCAL ROLE nobody_else")
            assert of_database._count(database, "fresh") == Rows(None, exact=False)
            transaction.rollback()
        database.execute_sql("DROP TABLE fresh; DROP ROLE nobody_else")
        database.close()
