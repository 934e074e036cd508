"""PostgreSQL under faults while two consumers write: everything is done in the end, and nothing twice."""

import contextlib
from collections.abc import Callable, Iterator
from threading import Event, Thread

import psycopg2
import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.waiting import eventually, last

pytestmark = pytest.mark.faults

APPLICATION = "aggregator-consumer"
WRITTEN_TABLES = ("report", "rule_hit", "recommendation", "report_info", "consumer_error")
STATES = ("53100", "53200", "55P03", "40001", "40P01", "57014", "58030", "XX000", "23505", "25006")
"""Disk full, memory, no lock, serialization, deadlock, cancelled, IO error, internal error, duplicate, read-only."""

Fault = Callable[[FaultRun, PostgresqlServer], None]


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """Yield a server that a test may do anything to."""
    server = PostgresqlServer(
        {"max_connections": "14", "superuser_reserved_connections": "0", "deadlock_timeout": "50ms"}
    )
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def deployment(server: PostgresqlServer, apache_kafka: ApacheKafka, processes: Processes) -> Deployment:
    """Return a deployment whose database server belongs to this test."""
    deployment = Deployment(processes, apache_kafka, server.create_database())
    deployment.migrate()
    return deployment


def _stop(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("fast shutdown of PostgreSQL"):
        server.stop()
    server.start()


def _crash(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("immediate shutdown of PostgreSQL"):
        server.crash()
    server.start()


def _kill(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("SIGKILL of PostgreSQL"):
        server.kill()
    server.start()


def _end_sessions(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("sessions ended by an administrator"):
        server.end_sessions(APPLICATION)


def _make_read_only(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("PostgreSQL is a standby"):
        server.demote()
        _wait_until_seen(run)
    server.promote()


def _freeze_for_a_moment(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("SIGSTOP of PostgreSQL"), server.frozen():
        last(3)


def _lock(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("table locked by another session"), run.deployment.reports_locked():
        eventually(run.deployment.waits_for_lock, 20, "a consumer waits for the lock")
        # longer than a statement of these consumers may take
        last(3)


def _take_all_connections(run: FaultRun, server: PostgresqlServer) -> None:
    with run.fault("max_connections reached"), contextlib.ExitStack() as taken:
        administrator = psycopg2.connect(server.admin_url)
        taken.callback(administrator.close)
        administrator.autocommit = True
        administrator.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (APPLICATION,)
        )
        _take_connections(server.admin_url, taken)
        _wait_until_seen(run)


def _take_connections(url: str, taken: contextlib.ExitStack) -> None:
    """Connect until there is no connection left."""
    while True:
        try:
            connection = psycopg2.connect(url)
        except psycopg2.OperationalError:
            return
        taken.callback(connection.close)


FAULTS: dict[str, Fault] = {
    "stopped": _stop,
    "crashed": _crash,
    "killed": _kill,
    "sessions ended": _end_sessions,
    "read-only": _make_read_only,
    "frozen": _freeze_for_a_moment,
    "locked": _lock,
    "no connection left": _take_all_connections,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_database_again_and_again_loses_and_repeats_nothing(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun, fault: Fault
) -> None:
    run = begin_run(deployment, seed=5, DATABASE__STATEMENT_TIMEOUT="2")
    run.begin_load()
    run.start_two()
    for _ in range(3):
        run.wait_for_stored(run.random.randrange(20, 300))
        fault(run, server)
    run.finish()


@pytest.mark.long
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


@pytest.mark.parametrize("states", [STATES[:2], pytest.param(STATES, marks=pytest.mark.long)])
def test_a_statement_that_fails_for_no_fault_of_its_values_is_done_again(
    deployment: Deployment, server: PostgresqlServer, begin_run: BeginRun, states: tuple[str, ...]
) -> None:
    run = begin_run(deployment, seed=7)
    set_state = _make_statements_fail_on_demand(deployment)
    run.begin_load()
    run.start_two()
    for state in states:
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
    with run.fault("deadlocks"), _locking_backwards(deployment.database_url):
        eventually(lambda: _deadlocks(deployment.database_url) >= 3, 40, "three deadlocks", interval=0.3)
    run.finish()


def _wait_until_seen(run: FaultRun) -> None:
    """Wait until both consumers tell of an outage."""
    for consumer in run.consumers:
        eventually(lambda: consumer.readiness().status == 503, 30, "not ready")  # noqa: B023 - called at once


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


@contextlib.contextmanager
def _locking_backwards(url: str) -> Iterator[None]:
    """Lock reports one by one from the last cluster to the first, again and again, until the end of the block."""
    stop = Event()

    def work() -> None:
        connection = psycopg2.connect(url)
        while not stop.is_set():
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT cluster FROM report ORDER BY cluster DESC")
                    for (cluster,) in cursor.fetchall():
                        cursor.execute("SELECT 1 FROM report WHERE cluster = %s FOR UPDATE", (cluster,))
            except psycopg2.errors.DeadlockDetected:
                continue
        connection.close()

    thread = Thread(target=work, name="backwards")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _deadlocks(url: str) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()
