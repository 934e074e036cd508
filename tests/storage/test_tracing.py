"""Statements as spans: on PostgreSQL, within other spans, and without a value of theirs."""

from collections.abc import Iterator

import psycopg2
import pytest
from peewee import Database

from consumer_service.statement_limit import StatementLimit
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_writer
from tests.storage.conftest import Store
from tests.support.api import CLUSTER, ApiUnderTest
from tests.support.collector import PRODUCER_TRACE, TRACEPARENT, SpansInMemory, ids_of, parent_of
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.tables import empty_tables

SECRET = "of-a-customer"


@pytest.fixture
def memory() -> SpansInMemory:
    """Return where spans are kept."""
    return SpansInMemory()


@pytest.fixture
def database(shared_url: str, memory: SpansInMemory) -> Iterator[Database]:
    """Yield a traced database, with a password in its URL."""
    scheme, _, rest = shared_url.partition("://")
    user, _, place = rest.rpartition("@")
    url = f"{scheme}://{user.partition(':')[0]}:{SECRET}@{place}"
    database = open_writer(DatabaseSettings(url=Secret(url)), "tests")
    memory.spans.watch(database)
    yield database
    empty_tables(database)
    database.close()


@pytest.mark.parametrize("many", [1, 1000], ids=["by COPY", "by INSERT"])
def test_every_statement_of_a_transaction_is_a_span_without_values(
    database: Database, memory: SpansInMemory, many: int
) -> None:
    store = Store(database, many)
    with memory.spans.span("write"):
        for checked in ("2026-05-01T08:00:00Z", "2026-05-01T09:00:00Z"):
            hits = [HitSpec(f"{SECRET}.rule.report", "KEY", {"name": SECRET + checked})]
            store.write([record(payload(checked=checked, hits=hits, version=SECRET)), record(SECRET.encode(), 1)])
    *statements, write = memory.finished
    names = [span.name for span in statements]
    assert names.count("BEGIN") == names.count("COMMIT") == 2
    assert names[-1] == "COMMIT"
    assert ("COPY report" if many == 1 else "INSERT INTO report") in names
    assert {parent_of(span) for span in statements} == {ids_of(write)[1]}
    for span in statements:
        assert SECRET not in span.to_json()
        assert CLUSTERS[0] not in span.to_json()
        assert span.attributes
        assert span.attributes["db.system.name"] == "postgresql"
    texts = [span.attributes.get("db.query.text") for span in statements if span.attributes]
    assert any("%s" in str(text) for text in texts)


def test_an_error_of_the_database_is_told_by_its_state_alone(database: Database, memory: SpansInMemory) -> None:
    with memory.spans.span("write"), pytest.raises(psycopg2.Error, match=SECRET):
        database.cursor().execute("SELECT CAST(%s AS integer)", (SECRET,))
    statement = memory.named("SELECT")[-1]
    assert SECRET not in statement.to_json()
    assert statement.attributes
    assert (statement.status.is_ok, statement.attributes["error.type"]) == (False, "22P02")


def test_statements_that_are_traced_are_watched_as_well(shared_url: str, memory: SpansInMemory) -> None:
    answers: list[str] = []
    database = open_writer(DatabaseSettings(url=Secret(shared_url)), "tests")
    StatementLimit(60, lambda: answers.append("answered")).watch(database)
    memory.spans.watch(database)
    database.connect()
    answers.clear()
    with memory.spans.span("write"):
        database.execute_sql("SELECT 1")
    database.close()
    assert answers == ["answered"]
    assert [span.name for span in memory.finished] == ["SELECT", "write"]


def test_a_statement_that_belongs_to_nothing_is_no_span(database: Database, memory: SpansInMemory) -> None:
    database.execute_sql("SELECT 1")
    assert memory.finished == ()


def test_a_request_is_followed_from_its_header_to_its_statement(shared_url: str, memory: SpansInMemory) -> None:
    api = ApiUnderTest(shared_url, spans=memory.spans)
    api.get(f"organizations/1/clusters/{CLUSTER}/users/{SECRET}/report", headers={"traceparent": TRACEPARENT})
    *statements, request = memory.finished
    assert request.name.startswith("GET ")
    assert {ids_of(span)[0] for span in memory.finished} == {PRODUCER_TRACE}
    (execution,) = memory.named("EXECUTE ")
    assert parent_of(execution) == ids_of(request)[1]
    for span in statements:
        assert SECRET not in span.to_json()
        assert CLUSTER not in span.to_json()
    api.close()
