"""How the API reads: connections and prepared statements on PostgreSQL, and what must not fail a request."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import peewee
import pytest
from peewee import Database
from prometheus_client import CollectorRegistry

from api_service import queries
from api_service.database import OutageError, Reader, Statement
from api_service.metrics import ApiMetrics
from api_service.paging import Page
from libaggregator.build import BuildFacts
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader
from libaggregator.storage.faults import Fault
from libaggregator.storage.schema import migrate
from tests.support.databases import open_database
from tests.support.postgresql import PostgresqlServer, with_select_only
from tests.support.waiting import eventually

CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
BACKEND = Statement("backend", "SELECT pg_backend_pid()", {})
PREPARED = Statement("prepared", "SELECT name FROM pg_prepared_statements ORDER BY name", {})


class RecordingMetrics(ApiMetrics):
    """Keeps the faults that it is told of."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), BuildFacts())
        self.faults: list[Fault] = []

    def count_fault(self, fault: Fault) -> None:
        """Keep it."""
        self.faults.append(fault)


class Bench:
    """A migrated database with one report, a writer on it, and a reader whose connections can be tampered with.

    The reader has a role that can only read.
    """

    def __init__(self, url: str, prepare: bool = True, **settings: Any) -> None:
        self.writer = open_database(url)
        migrate(self.writer)
        self.settings = DatabaseSettings(url=Secret(with_select_only(url)), **settings)
        self.metrics = RecordingMetrics()
        self.faults = self.metrics.faults
        self.opened: list[Database] = []
        self.reader = Reader(self._open, prepare, self.metrics)
        self.writer.execute_sql(
            "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at)"
            f" VALUES (1, '{CLUSTER}', '{{}}', '2026-05-04 08:00:00', '2026-05-04 08:00:00.5')"
        )

    def _open(self) -> Database:
        self.opened.append(open_reader(self.settings, "tests reader"))
        return self.opened[-1]

    def organizations(self) -> list[int]:
        """Ask a question."""
        return queries.organizations(self.reader)

    def close(self) -> None:
        """Close every connection of this thread."""
        for database in (*self.opened, self.writer):
            database.close()


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    """Yield a maker of benches, which are closed afterwards."""
    made: list[Bench] = []

    def make(url: str, **settings: Any) -> Bench:
        made.append(Bench(url, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_a_session_can_only_read(database_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(database_url)
    delete = Statement("delete_reports", "DELETE FROM report", {})
    with pytest.raises((OutageError, peewee.InternalError), match=r"read-?only"):
        bench.reader.read(delete)
    assert bench.organizations() == [1]


def test_a_thread_keeps_its_connection_and_shares_it_with_no_other(postgresql_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(postgresql_url)
    mine = {bench.reader.read(BACKEND)[0][0] for _ in range(3)}
    theirs: list[int] = []

    def ask() -> None:
        theirs.append(bench.reader.read(BACKEND)[0][0])
        bench.opened[-1].close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(mine) == 1
    assert mine.isdisjoint(theirs)


def test_a_statement_is_prepared_once_a_connection(postgresql_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(postgresql_url)
    for _ in range(3):
        bench.organizations()
    assert bench.reader.read(PREPARED) == [("organizations",), ("prepared",)]


def test_nothing_is_prepared_where_that_is_switched_off(postgresql_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(postgresql_url, prepare=False)
    assert bench.organizations() == [1]
    assert bench.reader.read(PREPARED) == []


@pytest.mark.parametrize(
    "tampering",
    [
        "DEALLOCATE ALL",
        "SELECT pg_terminate_backend(pg_backend_pid())",
    ],
)
def test_a_connection_that_was_broken_is_opened_anew_without_a_failed_request(
    postgresql_url: str, make_bench: MakeBench, tampering: str
) -> None:
    bench = make_bench(postgresql_url)
    assert bench.organizations() == [1]
    try:
        bench.opened[0].execute_sql(tampering)
    except peewee.DatabaseError:
        assert "terminate" in tampering
    assert bench.organizations() == [1]
    assert bench.faults == []
    assert bench.organizations() == [1]
    assert ("organizations",) in bench.reader.read(PREPARED)


def test_a_plan_that_does_not_fit_any_more_fails_no_request(postgresql_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(postgresql_url)
    assert bench.organizations() == [1]
    bench.writer.execute_sql("ALTER TABLE report ALTER COLUMN org_id TYPE integer")
    assert [bench.organizations() for _ in range(3)] == [[1]] * 3
    assert bench.faults == []


def test_a_name_that_is_prepared_already_on_every_new_connection_fails_no_request(
    postgresql_url: str, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared_by_another_client(database: Database, connection: Any) -> None:
        connection.cursor().execute("PREPARE organizations AS SELECT 7")

    bench = make_bench(postgresql_url)
    monkeypatch.setattr(peewee.PostgresqlDatabase, "_initialize_connection", prepared_by_another_client)
    assert [bench.organizations() for _ in range(3)] == [[1]] * 3
    assert bench.faults == []


@pytest.mark.parametrize("prepare", [True, False])
def test_an_organization_above_31_bits_is_asked_for_also_in_narrow_columns(
    postgresql_url: str, make_bench: MakeBench, prepare: bool
) -> None:
    bench = make_bench(postgresql_url, prepare=prepare)
    for table in ("report", "rule_hit", "recommendation", "report_info"):
        bench.writer.execute_sql(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE integer")
    reader = bench.reader
    assert queries.has_report(reader, 4294967295) is False
    assert queries.report(reader, 4294967295, CLUSTER, "u") is None
    assert [found.org_id for found in queries.reports(reader, 4294967295, [CLUSTER])] == [1]
    assert queries.recommendations(reader, 4294967295, [CLUSTER]) == []
    assert queries.clusters_detail(reader, 4294967295, "a.b|K", [], Page()) == []


@pytest.mark.parametrize("prepare", [True, False])
def test_every_question_can_be_asked_on_both_engines(database_url: str, make_bench: MakeBench, prepare: bool) -> None:
    bench = make_bench(database_url, prepare=prepare)
    types = {"bigint": 1, "text": "x", "text[]": ["x", CLUSTER], "timestamp": queries.datetime(2026, 1, 1)}
    statements = [found for found in vars(queries).values() if isinstance(found, Statement)]
    assert len(statements) > 15
    for statement in statements:
        values = {name: types[statement.types[name]] for name in statement.parameters}
        assert bench.reader.read(statement, **values) is not None
    assert bench.faults == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfff"])
@pytest.mark.parametrize("prepare", [True, False])
def test_a_text_that_can_not_be_stored_equals_nothing(
    database_url: str, make_bench: MakeBench, prepare: bool, text: str
) -> None:
    bench = make_bench(database_url, prepare=prepare)
    assert queries.reasons_of_user(bench.reader, text, None) == []
    assert queries.rating(bench.reader, 1, text) is None
    assert [found.cluster for found in queries.reports(bench.reader, 1, [text, CLUSTER])] == [CLUSTER]
    assert queries.reports(bench.reader, 1, [text]) == []
    assert queries.reports(bench.reader, 1, []) == []


def test_the_report_of_another_organization_is_not_read(database_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(database_url)
    assert queries.reports(bench.reader, 1, [CLUSTER]) == [(1, CLUSTER, "{}")]
    assert queries.reports(bench.reader, 2, [CLUSTER]) == [(1, CLUSTER, None)]


@pytest.mark.parametrize("text", ["%", "%s", "%(x)s", ":x", "'; --", "\\", '"', "{}", "a,b", "😀"])
def test_any_other_text_is_a_value_and_never_a_part_of_the_statement(
    database_url: str, make_bench: MakeBench, text: str
) -> None:
    bench = make_bench(database_url)
    row = (text, text, text, "K", "1", text)
    marks = ", ".join([bench.writer.param] * len(row))
    bench.writer.execute_sql(
        "INSERT INTO cluster_user_rule_disable_feedback"
        " (cluster_id, user_id, rule_id, error_key, org_id, message, added_at, updated_at)"
        f" VALUES ({marks}, '2026-05-04 08:00:00', '2026-05-04 08:00:00')",
        row,
    )
    assert [reason.message for reason in queries.reasons_of_user(bench.reader, text, 1)] == [text]


def test_a_wrong_statement_is_no_outage(database_url: str, make_bench: MakeBench) -> None:
    bench = make_bench(database_url)
    with pytest.raises(peewee.DatabaseError):
        bench.reader.read(Statement("wrong", "SELECT nothing FROM report", {}))
    assert bench.faults == [Fault.STATEMENT]
    assert bench.organizations() == [1]


def test_a_statement_that_takes_too_long_is_an_outage_and_costs_no_connection(
    postgresql_url: str, make_bench: MakeBench
) -> None:
    bench = make_bench(postgresql_url, read_timeout=0.1)
    backend = bench.reader.read(BACKEND)
    with bench.writer.atomic():
        bench.writer.execute_sql("LOCK TABLE report IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(OutageError, match="statement timeout"):
            bench.organizations()
    assert bench.faults == [Fault.OUTAGE]
    assert bench.organizations() == [1]
    assert bench.reader.read(BACKEND) == backend


def test_a_server_that_is_away_is_an_outage_until_it_is_back(
    own_postgresql: PostgresqlServer, make_bench: MakeBench
) -> None:
    bench = make_bench(own_postgresql.create_database())
    assert bench.organizations() == [1]
    own_postgresql.stop()
    for _ in range(2):
        with pytest.raises(OutageError) as outage:
            bench.organizations()
        assert "SELECT" not in str(outage.value)
    own_postgresql.start()
    assert eventually(bench.organizations, 10, "an answer") == [1]
    assert set(bench.faults) == {Fault.OUTAGE}
