"""PostgreSQL under faults while two consumers write: everything is done in the end, and nothing twice."""

from collections.abc import Callable, Iterator

import psycopg2
import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.faults import DATABASE_FAULTS, SERVER_OPTIONS, DatabaseFault, deadlocks
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import PostgresqlServer, running_postgresql
from tests.support.processes import Processes
from tests.support.waiting import eventually, last

pytestmark = [pytest.mark.faults, pytest.mark.long]

WRITTEN_TABLES = ("report", "rule_hit", "recommendation", "report_info", "consumer_error")
STATES = ("53100", "53200", "55P03", "40001", "40P01", "57014", "58030", "XX000", "23505", "25006")
"""Disk full, memory, no lock, serialization, deadlock, cancelled, IO error, internal error, duplicate, read-only."""


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """Yield a server that a test may do anything to."""
    with running_postgresql(SERVER_OPTIONS) as server:
        yield server


@pytest.fixture
def deployment(server: PostgresqlServer, apache_kafka: ApacheKafka, processes: Processes) -> Deployment:
    """Return a deployment whose database server belongs to this test."""
    deployment = Deployment(processes, apache_kafka, server.create_database())
    deployment.migrate()
    return deployment


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=name) for name, fault in DATABASE_FAULTS.items()],
)
def test_a_fault_of_the_database_again_and_again_loses_and_repeats_nothing(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun, fault: DatabaseFault
) -> None:
    run = begin_run(deployment, seed=5, DATABASE__STATEMENT_TIMEOUT="2")
    run.begin_load()
    run.start_two()
    for _ in range(3):
        run.wait_for_stored(run.random.randrange(20, 300))
        with fault(run, server):
            # longer than a statement of these consumers may take
            last(run.random.choice([0, 3]))
    run.finish()


def test_a_database_that_is_frozen_for_a_minute_is_waited_for(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=6)
    run.begin_load()
    run.start_two()
    run.wait_for_stored()
    with run.fault("SIGSTOP of PostgreSQL for a minute"), server.frozen():
        last(60)
        for consumer in run.consumers:
            assert consumer.liveness().status == 200
    run.finish()


def test_a_statement_that_fails_for_no_fault_of_its_values_is_done_again(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=7)
    set_state = _make_statements_fail_on_demand(deployment)
    run.begin_load()
    run.start_two()
    for state in STATES:
        table = run.random.choice(WRITTEN_TABLES)
        run.wait_for_stored(10)
        with run.fault(f"{state} by statements on {table}"):
            set_state(table, state)
            _wait_for_retries(run)
            set_state(table, None)
    run.finish()


def test_deadlocks_with_another_program_are_no_fault_of_the_messages(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=8)
    run.begin_load()
    run.start_two()
    run.wait_for_stored(100)
    with deadlocks(run, server):
        eventually(lambda: _deadlocks(deployment.database_url) >= 3, 40, "three deadlocks", interval=0.3)
    run.finish()


def _wait_for_retries(run: FaultRun) -> None:
    """Wait until a consumer has done a write again."""

    def retries() -> float:
        name = 'aggregator_consumer_retries_total{step="write"}'
        return sum(consumer.metrics().get(name, 0) for consumer in run.consumers)

    before = retries()
    eventually(lambda: retries() > before, 30, "a write is done again")


def _make_statements_fail_on_demand(deployment: Deployment) -> Callable[[str, str | None], None]:
    """Let every statement that writes look in a table of faults; return what sets the SQLSTATE for a table."""
    with deployment.database() as database:
        database.execute_sql("CREATE TABLE made_fault (table_name text PRIMARY KEY, state text)")
        database.execute_sql(
            "CREATE FUNCTION fail_on_demand() RETURNS trigger LANGUAGE plpgsql AS $$"
            " DECLARE wanted text; BEGIN"
            " SELECT state INTO wanted FROM made_fault WHERE table_name = TG_TABLE_NAME;"
            " IF wanted IS NOT NULL THEN RAISE EXCEPTION 'made by a test' USING ERRCODE = wanted; END IF;"
            " RETURN NULL; END $$"
        )
        for table in WRITTEN_TABLES:
            database.execute_sql(
                f"CREATE TRIGGER fail_on_demand AFTER INSERT OR UPDATE OR DELETE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION fail_on_demand()"
            )

    def set_state(table: str, state: str | None) -> None:
        with deployment.database() as database:
            database.execute_sql("DELETE FROM made_fault")
            database.execute_sql("INSERT INTO made_fault VALUES (%s, %s)", (table, state))

    return set_state


def _deadlocks(url: str) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()
